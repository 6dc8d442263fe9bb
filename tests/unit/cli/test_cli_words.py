"""Words on the command line that are no text, empty, or endless: one sentence that fits a screen.

Without it a pasted file as an argument could fill the screen with an error.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainctl.cli.main import main
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

FILE = "{apiVersion: trainctl.dev/v1, kind: TrainJob, metadata: {name: a}}"


@pytest.mark.parametrize(
    "words",
    [
        ("describe", "--", "\udcff\udcfe"),
        ("submit", "-f", "\udcff\udcfe"),
        ("submit", "-f", "job.yaml", "--set", "metadata.labels.a=\udcff\udcfe"),
        ("get", "jobs", "--address", "\udcff\udcfe:1"),
        ("\udcff\udcfe",),
    ],
)
def test_arguments_that_are_no_text(cli: Cli, controller: FakeController, words: tuple[str, ...]) -> None:
    found = cli(*words)
    assert found.code == 2
    assert f"error: argument {len(words)}: expected UTF-8 text, found '" in found.err
    assert r"\xff\xfe" in found.err
    assert "hint: " in found.err
    assert not controller.calls


def test_variables_that_are_no_text(environment: dict[str, str]) -> None:
    raw = {os.fsencode(name): os.fsencode(value) for name, value in {**os.environ, **environment}.items()}
    raw[b"TRAINCTL_TENANT"] = b"\xff\xfe"
    done = subprocess.run(
        [sys.executable, "-m", "trainctl.cli", "get", "jobs"], env=raw, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 2
    assert done.stderr.startswith(rb"error: TRAINCTL_TENANT: expected UTF-8 text, found '\xff\xfe' (USAGE)")


def test_a_job_cannot_name_what_lies_in_a_folder_that_is_no_text(cli: Cli, tmp_path: Path) -> None:
    odd = tmp_path / "caf\udce9"
    odd.mkdir()
    (odd / "job.yaml").write_text(FILE[:-1] + ", spec: {train: {data: {uri: corpus}}}}")
    here = Path.cwd()
    os.chdir(odd)
    try:
        found = cli("submit", "-f", "job.yaml", "--dry-run=client")
    finally:
        os.chdir(here)
    assert found.code == 2
    assert "this path is not UTF-8, so no job can name it" in found.err
    assert r"caf\xe9" in found.err or "..." in found.err


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("describe", ""), "NAME: expected the name or uid of a job, found an empty text", "get jobs` lists all"),
        (("get", "jobs", ""), "NAME: expected the name or uid of a job", "is the variable in it set?"),
        (("top", ""), "NAME: expected the name or uid of a job", "is the variable in it set?"),
        (("cancel", " ", "-y"), "NAME: expected the name or uid of a job", "get jobs` lists all"),
        (("nodes", "cordon", ""), "NODE: expected the name of a node, found an empty text", "nodes list` lists all"),
        (("pause", "a", "--request-id", ""), "--request-id: expected 1 to 128 printable", "is the variable in it set?"),
        (("pause", "a", "--request-id", "x" * 5000), "--request-id: expected 1 to 128 printable characters, found 5000",
         "a UUID will do"),
        (("pause", "a", "--request-id", "a\nb"), r"found 'a\nb'", "a UUID will do"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_name_or_an_id(
    cli: Cli, controller: FakeController, words: tuple[str, ...], said: str, hint: str
) -> None:
    found = cli(*words)
    assert found.code == 2
    assert said in found.err
    assert hint in found.err.splitlines()[1]
    assert not controller.calls


ENDLESS = {"word": "x" * 5000, "words": "yy " * 2500, "escapes": "'" + "\x1b[31m" * 900}
PLACES: tuple[tuple[str, ...], ...] = (
    ("get", "job"), ("get",), ("get", "jobs", "-o"), ("get", "jobs", "-l"), ("get", "jobs", "--context"), (),
    ("get", "jobs", "--address"), ("get", "jobs", "--token-file"), ("get", "jobs", "--ca-file"),
    ("get", "jobs", "--tenant"), ("get", "jobs", "--timeout"), ("describe",), ("describe", "node"), ("watch",),
    ("events", "a", "--since"), ("logs", "a", "--rank"), ("logs", "a", "--attempt"), ("scale", "a", "--max"),
    ("cancel", "a", "-y", "--grace"), ("nodes", "cordon"), ("tokens", "create", "a", "--ttl"),
    ("tokens", "create", "a", "--role", "viewer", "--out"), ("submit", "-f"), ("plot", "a", "-o"),
    ("config", "use-context"), ("local", "up", "--dir"), ("local", "up", "--agents"), ("demo", "--corpus"),
    ("completion",),
)  # fmt: skip


@pytest.mark.parametrize("kind", ENDLESS)
@pytest.mark.parametrize("place", PLACES, ids=" ".join)
def test_what_is_endless_is_not_repeated_whole(cli: Cli, place: tuple[str, ...], kind: str) -> None:
    found = cli(*place, ENDLESS[kind])
    if found.code == 0:
        assert "-l" in place, "a label that no job has is no error"
        return
    assert len(found.err) < 2000
    assert "internal error" not in found.err
    assert "\x1b" not in found.err
    assert "\nhint: " in found.err


def test_a_long_expression_is_shown_around_the_place(cli: Cli) -> None:
    found = cli("get", "jobs", "-o", "jsonpath={" + ".a" * 3000 + "!" + ".b" * 3000)
    first, shown, mark, _ = found.err.splitlines()
    assert "position 6002" in first
    assert len(shown) < 140
    assert shown[mark.index("^")] == "!"


def test_a_name_of_a_file_that_no_disk_takes_is_a_wrong_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["local", "up", "--dir", f"{tmp_path}/{'x' * 300}"], env={"TRAINCTL_HOME": str(tmp_path)})
    assert code == 2
    err = capsys.readouterr().err
    assert "File name too long (USAGE)" in err
