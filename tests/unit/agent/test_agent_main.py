"""Without it two agents could share a folder, and a wrong flag be a traceback instead of a sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainctl.agent.dir_lock import lock_folder
from trainctl.agent.main import main
from trainctl.core.errors import PermissionDeniedError, PreconditionError


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "node-0"
    lock = lock_folder(folder)
    with pytest.raises(PreconditionError, match=rf"process {os.getpid()}\) already runs in {folder}"):
        lock_folder(folder)
    lock.release()
    lock_folder(folder).release()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionDeniedError, match="cannot be used"):
        lock_folder(tmp_path / "file" / "node-0")


@pytest.mark.parametrize("slots", ["0", "-1", "x"])
def test_slots_are_checked(tmp_path: Path, slots: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        main(["--controller", "127.0.0.1:1", "--node", "n", "--dir", str(tmp_path), "--slots", slots])
    assert error.value.code == 2
    assert "--slots" in capsys.readouterr().err


def test_a_locked_folder_is_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = lock_folder(tmp_path)
    assert main(["--controller", "127.0.0.1:1", "--node", "n", "--dir", str(tmp_path)]) == 6
    lock.release()
    assert "hint: one agent a folder" in capsys.readouterr().err


@pytest.mark.parametrize("node", ["", "a/b", "a\nb", "\udcff", "x" * 5000])
def test_the_name_of_a_node_is_checked(tmp_path: Path, node: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "agent"
    assert main(["--controller", "127.0.0.1:1", "--node", node, "--dir", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "error: --node: expected 1 to 253 letters, digits" in said
    assert len(said) < 400
    assert not folder.exists()


def test_the_name_of_a_failure_domain_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--controller", "127.0.0.1:1", "--node", "n", "--dir", str(tmp_path / "agent")]
    assert main([*options, "--failure-domain", "rack/4"]) == 2
    assert "error: --failure-domain: expected 1 to 253 letters, digits" in capsys.readouterr().err
    assert not (tmp_path / "agent").exists()
