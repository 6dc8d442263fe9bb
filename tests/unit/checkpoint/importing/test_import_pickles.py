"""The reader of pickles does nothing that a pickle says, and takes nothing that is not expected.

Without it an import could run a stranger's program.
"""

from __future__ import annotations

import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from trainctl.checkpoint.importing.pickles import Made, Name, read_pickle
from trainctl.core.errors import CheckpointError
from unit.checkpoint.evil_pickle import Runs

VALUES: list[Any] = [
    None, True, 3, -1, 1 << 40, 1 << 80, 0.5, "text", "ü" * 300, b"bytes", (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4),
    [], [1], [[1], [2, 3]], {}, {"a": 1}, {"a": {"b": (1, [2])}, 3: None}, [("x",) * 2] * 3, OrderedDict(),
]  # fmt: skip
ALLOWED = frozenset({("collections", "OrderedDict"), ("pathlib", "PurePosixPath")})


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_plain_values_read_as_they_are(protocol: int) -> None:
    for value in VALUES:
        if protocol < 3 and isinstance(value, bytes):
            continue
        assert read_pickle(pickle.dumps(value, protocol), ALLOWED, where="f") == value
    shared = ["x"]
    twice = read_pickle(pickle.dumps([shared, shared], protocol), ALLOWED, where="f")
    assert twice[0] is twice[1]


def test_objects_become_records_of_what_would_have_been_made() -> None:
    path = read_pickle(pickle.dumps(PurePosixPath("a/b"), 4), ALLOWED, where="f")
    assert isinstance(path, Made)
    assert (path.what, path.arguments) == (Name("pathlib", "PurePosixPath"), ("a", "b"))


@pytest.mark.parametrize("protocol", [1, 2, 4, 5])
def test_a_command_is_named_and_not_run(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "was-here"
    data = pickle.dumps({"a": [1, Runs(f"touch {mark}")]}, protocol)
    with pytest.raises(CheckpointError, match=r"f is refused: it names (posix|nt)\.system") as caught:
        read_pickle(data, ALLOWED, where="f")
    assert "nothing is run" in caught.value.hint
    assert not mark.exists()
    pickle.loads(data)
    assert mark.exists()


@pytest.mark.parametrize(
    ("data", "opcode"),
    [
        (b"(S'touch x'\nios\nsystem\n.", "STRING"),
        (b"(ios\nsystem\n.", "INST of os system"),
        (b"\x80\x02cpathlib\nPurePosixPath\n(U\x01ao.", "SHORT_BINSTRING"),
        (b"\x80\x02(cpathlib\nPurePosixPath\no.", "OBJ"),
        (b"\x80\x02\x82\x01.", "EXT1 of 1"),
        (b"\x80\x05\x97.", "NEXT_BUFFER"),
        (b"P1\n.", "PERSID of 1"),
    ],
)
def test_other_opcodes_are_refused_by_name(data: bytes, opcode: str) -> None:
    with pytest.raises(CheckpointError, match=f"expected data, found opcode {opcode}"):
        read_pickle(data, ALLOWED, where="f")


def test_every_torn_or_changed_pickle_ends_in_one_error() -> None:
    whole = pickle.dumps({"a": [1, (2, "three")], "b": PurePosixPath("x/y")}, 4)
    for end in range(len(whole)):
        with pytest.raises(CheckpointError, match="f "):
            read_pickle(whole[:end], ALLOWED, where="f")
    opcodes = bytes(ord(opcode.code) for opcode in pickletools.opcodes)
    for place in range(len(whole)):
        for other in opcodes:
            try:
                read_pickle(whole[:place] + bytes([other]) + whole[place + 1 :], ALLOWED, where="f")
            except CheckpointError:
                continue
