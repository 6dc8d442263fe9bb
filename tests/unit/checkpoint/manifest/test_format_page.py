"""What docs/format.md says of the format: its reader, run as it stands, reads what any number of ranks saved.

Without it somebody who needs their weights in ten years could not read them by the page.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from architecture.pages import ROOT, blocks
from trainctl.checkpoint.layout.key import StateKey
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.manifest.codec import sha256
from unit.checkpoint.ranks import flats, full_values, key, plain, rows, same_bits, save

(READER,) = (block.text for block in blocks(ROOT / "docs" / "format.md") if block.runs and "safe_open" in block.text)
SHAPES = {"w": (7, 5), "b": (5,), "scalar": (), "none": (0, 4), "one": (1,), "odd@@name": (3, 3)}
Cut = Callable[[Mapping[StateKey, torch.Tensor], int], Layout]


def columns(values: Mapping[StateKey, torch.Tensor], ranks: int) -> Layout:
    return rows(values, ranks, dim=1)


@pytest.mark.parametrize("cut", [plain, rows, columns, flats])
@pytest.mark.parametrize("max_file_bytes", [5 << 30, 48])
def test_the_reader_of_the_page_reads_every_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: Cut, max_file_bytes: int
) -> None:
    values = {**full_values(SHAPES), **full_values({"half": (4, 6)}, dtype="BF16")}
    moments = {key(k.fqn, k.dtype, "exp_avg"): torch.flip(v, (0,)) if v.dim() else v for k, v in values.items()}
    save(tmp_path / "runs" / "first", values | moments, layout=cut(values | moments, 3), max_file_bytes=max_file_bytes)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(READER, "docs/format.md", "exec"), names)
    found = names["tensors"]
    assert found.keys() == {(k.kind, k.fqn) for k in values | moments}
    assert all(same_bits(found[k.kind, k.fqn], value) for k, value in (values | moments).items())


def test_hashes_and_checksums_are_what_the_page_says(tmp_path: Path) -> None:
    values = full_values({"w": (1 << 10, 1 << 11), "b": (5,)})
    folder = Path(save(tmp_path, values, layout=rows(values, 1), artifacts={"config.json": b"{}"}).uri)
    text = (folder / "manifest.json").read_text()
    root = json.loads(text)
    unsigned = json.dumps({**root, "selfSha256": ""}, sort_keys=True, separators=(",", ":"))
    assert root["selfSha256"] == sha256(unsigned.encode())
    listed = [root["parts"][0]["manifest"], root["contents"], *root["artifacts"]]
    assert all(sha256((folder / file["path"]).read_bytes()) == file["sha256"] for file in listed)
    part = json.loads((folder / "parts" / "w00000.json").read_bytes())
    data = (folder / part["files"][0]["path"]).read_bytes()
    assert (part["checksum"], part["blockBytes"], part["files"][0]["headerBytes"] % 4096) == ("crc32", 256 << 10, 0)
    assert f"{zlib.crc32(data[: part['files'][0]['headerBytes']]):08x}" == part["files"][0]["headerChecksum"]
    for chunk in (chunk for tensor in part["tensors"] for chunk in tensor["chunks"]):
        body = data[chunk["beginBytes"] :][: chunk["sizeBytes"]]
        blocks_of = [body[at : at + part["blockBytes"]] for at in range(0, len(body), part["blockBytes"])]
        assert [f"{zlib.crc32(block):08x}" for block in blocks_of] == chunk["checksums"]
    assert len(part["tensors"]) == 2
