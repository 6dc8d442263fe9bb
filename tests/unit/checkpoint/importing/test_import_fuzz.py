"""Whatever bytes stand in what is imported: the reader ends, soon, with values or with one clear error.

Without it an import of a damaged or hostile file hangs, takes all memory, or ends in a traceback.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.importing.pickles import read_pickle
from trainctl.checkpoint.importing.safetensors_file import read_header, tensor_in
from trainctl.checkpoint.importing.torch_file import locate_tensor
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError
from unit.domain.fuzz_effort import Effort

effort = Effort.of(os.environ)
ALLOWED = frozenset({("collections", "OrderedDict"), ("m", "n")})
OPCODES = tuple(
    code.encode("latin-1")
    for code in (
        *("(", "}", "]", ")", "t", "\x85", "\x86", "\x87", "a", "e", "s", "u", "\x93", "R", "\x81", "b", "Q", "0"),
        *("N", "\x88", "K\x01", "I5\n", "\x8c\x01m", "\x8c\x01n", "cm\nn\n", "ccollections\nOrderedDict\n"),
        *("q\x00", "q\x01", "h\x00", "h\x01", "\x94", "\x80\x04", ".", "C\x01x", "G12345678", "2", "1", "\x8f"),
    )
)
DEEP = b"\x80\x02)" + b"\x85" * 300_000
WIDE = b"\x80\x02)" + b"q\x00h\x00\x86" * 200
"""Each tuple has the former one in it twice: to walk through the last takes longer than there is time."""


def read(data: bytes) -> object:
    """The value, or what is wrong; either can be shown."""
    try:
        value = read_pickle(data, ALLOWED, where="f")
    except CheckpointError as error:
        value = str(error)
    str(value)
    return value


@effort
@given(st.lists(st.sampled_from(OPCODES) | st.binary(max_size=4), max_size=40))
def test_any_program_of_a_pickle(program: list[bytes]) -> None:
    read(b"".join(program) + b".")


@pytest.mark.parametrize(
    "data",
    [
        DEEP + b".",
        DEEP + b"q\x00}h\x00K\x01s.",
        DEEP + b"q\x00h\x00\x93.",
        WIDE + b".",
        WIDE + b"q\x00}h\x00K\x01s.",
        b"]q\x00h\x00a.",
        b"}q\x00K\x01h\x00s.",
    ],
    ids=["deep", "deep as a key", "deep as a name", "wide", "wide as a key", "a list in itself", "a dict in itself"],
)
def test_what_would_crash_or_never_end(data: bytes) -> None:
    """In a process of its own: what is to be seen is that it lives."""
    code = (
        "import sys\nfrom trainctl.checkpoint.importing.pickles import read_pickle\n"
        "from trainctl.core.errors import CheckpointError\n"
        "try:\n    read_pickle(sys.stdin.buffer.read(), frozenset(), where='f')\n"
        "except CheckpointError as error:\n    print(error)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=50, env=env)
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith((b"f is no intact pickle: ", b"f is refused: "))


def saved() -> bytes:
    file = io.BytesIO()
    torch.save(torch.arange(6.0).reshape(2, 3), file)
    return file.getvalue()


SAVED = saved()


@effort
@given(
    st.lists(st.tuples(st.integers(0, len(SAVED) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(SAVED)),
    st.integers(0, 20),
)
def test_any_damage_to_what_torch_saved(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, int]], stop: int, cut: int
) -> None:
    data = bytearray(SAVED)
    for position, value in changes:
        data[position] = value
    if cut == 0:
        del data[stop:]
    folder = tmp_path_factory.getbasetemp()
    (folder / "x").write_bytes(data)
    try:
        begin = locate_tensor(LocalStorage(folder), "x", 0, len(data), dtype="F32", shape=(2, 3), where="f")
    except CheckpointError:
        return
    assert 0 <= begin <= len(data) - 24


HEADERS = st.recursive(
    st.none() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=8) | st.sampled_from(("F32", "BF16", "I64")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(("dtype", "shape", "data_offsets", "w", "__metadata__")), inner, max_size=4)
    ),
    max_leaves=10,
)


@effort
@given(st.binary(max_size=40) | HEADERS.map(lambda value: header(value)))
def test_any_header_of_a_safetensors_file(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder: Path = tmp_path_factory.getbasetemp()
    (folder / "y").write_bytes(data)
    try:
        found, bodies = read_header(LocalStorage(folder), "y", "f")
        for name, entry in found.items():
            tensor_in(name, entry, "y", where="f", bodies=bodies, end=len(data))
    except CheckpointError:
        return


def header(value: object) -> bytes:
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + bytes(64)
