"""JSON that somebody else wrote.

Without it a damaged file could end a process with an error that nobody looks for, or fill its memory.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainctl.core.json_text import NoJsonError, parse_json, parse_object, read_object

DEEP = "[" * 100_000
NOT_JSON = ["", "{", DEEP, b"\xff\xfe\xfd", "1" * 10_000]


@pytest.mark.parametrize("text", NOT_JSON, ids=range(len(NOT_JSON)))
def test_whatever_is_wrong_is_one_kind_of_error(text: bytes | str) -> None:
    for parse in (parse_json, parse_object):
        with pytest.raises(NoJsonError):
            parse(text)


def test_another_value_is_no_object() -> None:
    assert parse_json("[1]") == [1]
    assert parse_object(b'{"a": 1}') == {"a": 1}
    for text, kind in (("[1]", "list"), ("null", "NoneType"), ('"a"', "str")):
        with pytest.raises(NoJsonError, match=f"^expected a JSON object, found {kind}$"):
            parse_object(text)


def test_a_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert read_object(path, 8) == {"a": 1}
    with pytest.raises(NoJsonError, match="found more than 7 B"):
        read_object(path, 7)
    with pytest.raises(OSError, match="it is a device, expected a regular file"):
        read_object(Path("/dev/zero"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a named pipe, expected a regular file"):
        read_object(tmp_path / "pipe")
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none")
