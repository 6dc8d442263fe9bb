"""Files of secrets: read, or refused with the file's name and never with what is in it.

Without it a wrong file of secrets could end up in an error message, with what is in it.
"""

import os
from pathlib import Path

import pytest

from trainctl.core.system.secret_files import SecretUnusableError, read_secrets


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    path.write_bytes(data)
    path.chmod(mode)


def test_values_are_those_of_the_files(tmp_path: Path) -> None:
    write(tmp_path / "A", b"one\n")
    write(tmp_path / "B", "zwölf\n\n".encode())
    write(tmp_path / "C", b"", 0o400)
    assert read_secrets(tmp_path, ["A", "B", "C"]) == {"A": "one", "B": "zwölf\n", "C": ""}
    assert read_secrets(None, []) == {}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_touch_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path / "A", b"hunter2", mode)
    with pytest.raises(SecretUnusableError, match="open to others than its owner") as caught:
        read_secrets(tmp_path, ["A"])
    assert caught.value.hint == f"chmod 600 {tmp_path / 'A'}"
    assert "hunter2" not in str(caught.value)


def test_what_is_no_secret_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    write(tmp_path / "huge", b"x" * 70_000)
    write(tmp_path / "zero", b"a\0b")
    write(tmp_path / "bytes", b"\xff\xfe")
    for name, word in (
        ("missing", "No such file"),
        ("folder", "no regular file"),
        ("pipe", "no regular file"),
        ("huge", "at most 64 KiB"),
        ("zero", "zero bytes"),
        ("bytes", "not text"),
        ("../escape", "no name of a file"),
    ):
        with pytest.raises(SecretUnusableError, match=word) as caught:
            read_secrets(tmp_path, [name])
        assert name in str(caught.value)
    with pytest.raises(SecretUnusableError, match=r"the job wants A, B, and this agent has no secrets"):
        read_secrets(None, ["A", "B"])
