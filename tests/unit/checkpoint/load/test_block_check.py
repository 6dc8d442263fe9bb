"""Blocks are compared many at once; what is wrong is one of them, and that one is named, or healed.

Without it a flipped bit would be said to be somewhere in four megabytes, or a whole piece be read again for it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.checkpoint.load.batches import batches
from trainctl.checkpoint.load.block_check import BlockCheck
from trainctl.checkpoint.manifest.checksum import PIECE_BYTES, checksums
from trainctl.checkpoint.manifest.rereads import Rereads
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import RangeRead
from trainctl.core.errors import DamagedCheckpointError

BLOCK_BYTES = 100
OFFSET = 7


class Noted(LocalStorage):
    """Knows which ranges were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ranges: list[tuple[int, int]] = []

    def read_ranges(self, path: str, ranges: Sequence[RangeRead]) -> None:
        self.ranges += [(one.offset, len(one.into)) for one in ranges]
        super().read_ranges(path, ranges)


@pytest.mark.parametrize("size", [90, 300, 450])
@pytest.mark.parametrize("on_disk", [False, True])
def test_the_block_that_is_wrong_is_named_or_healed(tmp_path: Path, size: int, on_disk: bool) -> None:
    data = random.Random(size).randbytes(size)
    wrong = bytearray(data)
    wrong[-1] ^= 8
    (tmp_path / "f").write_bytes(bytes(OFFSET) + (wrong if on_disk else data))
    storage, rereads = Noted(tmp_path), Rereads()
    begin = (size - 1) // BLOCK_BYTES * BLOCK_BYTES
    read = RangeRead(OFFSET, memoryview(wrong))

    def check() -> None:
        BlockCheck(storage, rereads).check("f", read, checksums(data, BLOCK_BYTES), BLOCK_BYTES, "param of w")

    if on_disk:
        with pytest.raises(DamagedCheckpointError, match=rf"bytes {OFFSET + begin}:{OFFSET + size} \(param of w\)"):
            check()
    else:
        check()
        assert bytes(wrong) == data
        assert rereads.healed == 1
    assert storage.ranges == [(OFFSET + begin, size - begin)]


class Read(NamedTuple):
    """Implements ``Located``."""

    path: str
    begin: int
    size: int


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, PIECE_BYTES), st.integers(1, 3)), max_size=30))
def test_a_batch_is_of_one_file_and_bounded_and_never_cut_within_the_same_bytes(
    drawn: list[tuple[str, int, int]],
) -> None:
    reads: list[Read] = []
    for number, (path, size, times) in enumerate(sorted(drawn, key=lambda one: one[0])):
        reads += [Read(path, number * PIECE_BYTES, size)] * times
    found = list(batches(reads))
    assert [read for batch in found for read in batch] == reads
    for batch, following in zip_longest(found, found[1:]):
        assert len({read.path for read in batch}) == 1
        sizes = {read.begin: read.size for read in batch}
        assert sum(sizes.values()) < 2 * PIECE_BYTES
        full = sum(sizes.values()) >= PIECE_BYTES
        assert following is None or full or following[0].path != batch[0].path
        assert following is None or following[0].begin not in sizes
