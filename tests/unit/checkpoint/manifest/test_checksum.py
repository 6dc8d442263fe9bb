"""Checksums in manifests: those of any other implementation of the algorithm that they name.

Without it another program could call our checkpoints damaged.
"""

from __future__ import annotations

import random
import zlib

import pytest

from trainctl.checkpoint.manifest.checksum import ALGORITHM, check_algorithm, checksum, checksums, joined
from trainctl.core.errors import CheckpointError


@pytest.mark.parametrize("size", [0, 1, 7, 63, 64, 65, 4095, 1 << 20])
def test_it_is_the_crc_32_of_the_standard_library(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert checksum(data) == checksum(memoryview(data)) == f"{zlib.crc32(data):08x}"


def test_another_algorithm_is_refused() -> None:
    check_algorithm(ALGORITHM, where="here")
    with pytest.raises(CheckpointError, match="here: expected checksums of kind crc32, found 'xxh3'"):
        check_algorithm("xxh3", where="here")


@pytest.mark.parametrize("size", [1, 63, 64, 65, 128, 1000])
def test_that_of_blocks_in_a_row_comes_from_theirs(size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert joined(checksums(data, 64), size, 64) == checksum(data)
    assert joined(checksums(data, 64), size, 64) != checksum(data[:-1] + bytes([data[-1] ^ 1]))
