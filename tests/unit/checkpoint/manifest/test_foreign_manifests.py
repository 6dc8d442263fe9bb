"""Whatever the manifests of a checkpoint say, signed as it should be: readers end in a clear error, or with values.

Without it somebody else's checkpoint reads files outside of its folder, or takes all memory.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.engine import load
from trainctl.checkpoint.export.hf import export_checkpoint
from trainctl.checkpoint.kept.catalog import survey
from trainctl.checkpoint.kept.origin import origin_of
from trainctl.checkpoint.kept.verification import verify
from trainctl.checkpoint.manifest.codec import parse_root, sha256
from trainctl.core.errors import CheckpointError, DamagedCheckpointError, TrainctlError
from trainctl.core.records.generation import CheckpointRef
from unit.changed_json import changed
from unit.checkpoint.ranks import full_values, plain, rank_state, save
from unit.domain.fuzz_effort import Effort

_usual = Effort.of(os.environ)
effort = Effort(examples=max(100, _usual.examples // 4), seed=_usual.seed)
NEW = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 40)
    | st.sampled_from(
        (2**31, 2**63, -(2**63), 10**12, 10**30, 0.5, float("nan"), "\ud800", "..", "/etc/passwd", "a//b")
    )
    | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("$float", "$int", "$tuple", "$pairs", "$counter", "a")), inner, max_size=2)
    ),
    max_leaves=6,
)
PATH = st.lists(st.integers(0, 50), max_size=7).map(tuple) | st.tuples(*[st.integers(0, 50)] * 7)


def dumped(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


class Forged:
    """A copy of a checkpoint whose manifests somebody changed, and signed again."""

    def __init__(self, whole: CheckpointRef, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder / "/".join(whole.uri.split("/")[-2:])
        shutil.copytree(whole.uri, self.folder)
        self.uri = str(folder)

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        path = self.folder / name
        data = dumped(change(json.loads(path.read_bytes())))
        path.write_bytes(data)
        if name != "manifest.json":
            self.edit("manifest.json", lambda root: _listed(root, name, len(data), sha256(data)))
            return
        root = json.loads(data)
        if isinstance(root, dict):
            root["selfSha256"] = sha256(dumped({**root, "selfSha256": ""}))
        path.write_bytes(dumped(root))

    def ref(self) -> CheckpointRef:
        digest = sha256((self.folder / "manifest.json").read_bytes())
        return CheckpointRef(
            uri=str(self.folder), step=1, lineage=1, attempt=self.folder.name, manifest_sha256=digest, committed_s=0.0
        )


def _listed(root: Any, name: str, size_bytes: int, digest: str) -> Any:
    if isinstance(root, dict) and root.get("path") == name:
        return {**root, "sizeBytes": size_bytes, "sha256": digest}
    if isinstance(root, dict):
        return {key: _listed(value, name, size_bytes, digest) for key, value in root.items()}
    return [_listed(value, name, size_bytes, digest) for value in root] if isinstance(root, list) else root


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> CheckpointRef:
    return save(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("forged")


def read_all(forged: Forged) -> None:
    """Every way to read it: none ends in anything but an error of ours."""
    values = full_values()
    ref, said = forged.ref(), ""
    for look in (
        lambda: survey(forged.uri),
        lambda: verify(ref),
        lambda: origin_of(ref),
        lambda: load(ref, rank_state(values, plain(values, 1), "rank:0", blank=True)),
    ):
        try:
            look()
        except CheckpointError as error:
            said = str(error)
        except TrainctlError as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error
        assert len(said) < 4000


@effort
@given(
    name=st.sampled_from(("manifest.json", "parts/w00000.json", "parts/contents.json")),
    path=PATH,
    new=NEW,
)
def test_any_value_in_any_manifest(
    whole: CheckpointRef, place: Path, name: str, path: tuple[int, ...], new: Any
) -> None:
    forged = Forged(whole, place)
    forged.edit(name, lambda fields: changed(fields, path, new))
    read_all(forged)


def first_chunk(part: Any) -> Any:
    return next(chunk for tensor in part["tensors"] for chunk in tensor["chunks"] if chunk["sizeBytes"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda part: part.update(blockBytes=0), "blocks have 0 bytes"),
        (lambda part: part.update(blockBytes=10**12), "blocks have 1000000000000 bytes"),
        (lambda part: part["files"][0].update(path="../../x"), "it names a file outside of its folder: ../../x"),
        (lambda part: part["files"][0].update(headerBytes=10**12), "has a header of 1000000000000 bytes"),
        (lambda part: part["files"][0].update(headerBytes=-1), "has a header of -1 bytes"),
        (lambda part: first_chunk(part).update(file=-1), "it lies in file -1 of 1"),
        (lambda part: first_chunk(part).update(file=1), "it lies in file 1 of 1"),
        (lambda part: first_chunk(part).update(beginBytes=10**12), "it begins at 1000000000000"),
        (lambda part: first_chunk(part).update(beginBytes=-4), "it begins at -4"),
        (lambda part: first_chunk(part).update(sizeBytes=10**12), "are not what its region has"),
        (lambda part: first_chunk(part).update(checksums=[]), "are not what its region has"),
        (lambda part: first_chunk(part).update(flat=[-1, 2]), "expected a region inside a tensor"),
        (lambda part: first_chunk(part).update(flat=[0, 10**30]), "expected a region inside a tensor"),
    ],
)
def test_what_a_part_must_not_say(whole: CheckpointRef, place: Path, change: Callable[[Any], None], said: str) -> None:
    forged = Forged(whole, place)
    part = json.loads((forged.folder / "parts/w00000.json").read_bytes())
    change(part)
    forged.edit("parts/w00000.json", lambda _: part)
    values = full_values()
    with pytest.raises(DamagedCheckpointError, match=r"parts/w00000.json is malformed: ") as found:
        load(forged.ref(), rank_state(values, plain(values, 1), "rank:0", blank=True))
    assert said in str(found.value)
    assert verify(forged.ref()).damage


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["placed"][0].update(starts=[-5]),
        lambda table: table["placed"][0].update(stops=[10**30]),
        lambda table: table["tensors"][0].update(shape=[-1]),
        lambda table: table["tensors"][0].update(placed=-1),
        lambda table: table["tensors"][0].update(kinds=[]),
    ],
)
def test_what_a_table_of_contents_must_not_say(
    whole: CheckpointRef, place: Path, change: Callable[[Any], None]
) -> None:
    forged = Forged(whole, place)
    table = json.loads((forged.folder / "parts/contents.json").read_bytes())
    change(table)
    forged.edit("parts/contents.json", lambda _: table)
    values = full_values()
    with pytest.raises(DamagedCheckpointError, match=r"parts/contents.json is malformed: .* does not fit"):
        load(forged.ref(), rank_state(values, plain(values, 1), "rank:0", blank=True))


@effort
@given(
    st.binary(max_size=60) | st.just(b"[" * 100_000) | st.just(b'{"tcf":1,"objects":' + b"[" * 400 + b"]" * 400 + b"}")
)
def test_any_bytes_as_a_root_manifest(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        parse_root(data, where="here")


@pytest.mark.parametrize(
    "path", ["artifacts/{target}", "{target}", "artifacts/../{target}", "artifacts/./x", "data//x"]
)
def test_an_artifact_is_not_exported_to_somewhere_else(
    whole: CheckpointRef, place: Path, tmp_path: Path, path: str
) -> None:
    target = tmp_path / "elsewhere"
    path = path.format(target=target)
    forged = Forged(whole, place)
    kept = Path(f"{forged.folder}/{path}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_bytes(b"foreign")
    artifact = {"path": path, "sizeBytes": 7, "sha256": sha256(b"foreign")}
    target.unlink(missing_ok=True)
    forged.edit("manifest.json", lambda root: {**root, "artifacts": [artifact]})
    with pytest.raises(DamagedCheckpointError, match="names a file outside of its folder"):
        parse_root((forged.folder / "manifest.json").read_bytes(), where="here")
    with pytest.raises(CheckpointError):
        export_checkpoint(str(forged.folder), str(tmp_path / "out"))
    assert not target.exists()


@pytest.mark.parametrize("mark", [{}, {"cursor": "x", "optimizer": 1}, {"cursor": None, "optimizer": True}])
def test_a_mark_of_an_import_that_says_nothing_is_an_error(whole: CheckpointRef, place: Path, mark: object) -> None:
    forged = Forged(whole, place)
    forged.edit("manifest.json", lambda root: {**root, "objects": {"imported": mark}})
    with pytest.raises(CheckpointError, match="expected where in the data"):
        origin_of(forged.ref())
