"""Pieces of a tensor, however it was cut, become its row-major blocks; gaps and overlaps are named.

Without it an import could fill the memory, or leave a gap of zeros.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainctl.checkpoint.importing import streaming
from trainctl.checkpoint.importing.source import Piece, SourceTensor
from trainctl.checkpoint.importing.streaming import TensorStream, check_whole
from trainctl.checkpoint.layout.region import Box, Flat, Shape, region_to_runs, whole
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import CheckpointError

Cuts = tuple[tuple[int, ...], ...]


@st.composite
def cut_tensors(draw: st.DrawFn) -> tuple[Shape, list[Box]]:
    """A shape, and a grid of boxes that make it up, in any order."""
    shape = tuple(draw(st.lists(st.integers(0, 6), min_size=0, max_size=3)))
    ends = [sorted({0, n, *draw(st.lists(st.integers(0, n), max_size=3))}) for n in shape]
    sides = [list(itertools.pairwise(cuts)) or [(0, 0)] for cuts in ends]
    boxes = [Box(tuple(a for a, _ in corner), tuple(b - a for a, b in corner)) for corner in itertools.product(*sides)]
    return shape, draw(st.permutations(boxes))


def stored(folder: Path, shape: Shape, boxes: list[Box]) -> tuple[SourceTensor, Any, bytes]:
    """Elements are their own row-major numbers, two bytes each; every box lies somewhere in one of two files."""
    values = [i.to_bytes(2, "little") for i in range(math.prod(shape))]
    pieces, files = [], {"one": b"junk", "two": b""}
    for index, box in enumerate(boxes):
        body = b"".join(values[i] for run in region_to_runs(shape, box) for i in range(run.start, run.stop))
        path = ("one", "two")[index % 2]
        pieces.append(Piece(box, path, len(files[path]), len(body)))
        files[path] += body + b"gap"
    for path, body in files.items():
        (folder / path).write_bytes(body)
    source = SimpleNamespace(storage=LocalStorage(folder), locate=lambda tensor, piece: piece.begin)
    return SourceTensor(("w",), "U16", shape, tuple(pieces)), source, b"".join(values)


@settings(max_examples=150, deadline=None)
@given(cut_tensors(), st.integers(1, 9), st.data())
def test_any_grid_of_boxes_reads_in_row_major_order(
    tmp_path_factory: pytest.TempPathFactory, cut: tuple[Shape, list[Box]], block_items: int, data: st.DataObject
) -> None:
    shape, boxes = cut
    tensor, source, expected = stored(tmp_path_factory.mktemp("pieces"), shape, boxes)
    check_whole(tensor, where="f")
    start = data.draw(st.integers(0, math.prod(shape)))
    stop = data.draw(st.integers(start, math.prod(shape)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "PIECE_BYTES", 2 * block_items)
        blocks = [bytes(block) for block in TensorStream(source, tensor).blocks(Flat(start, stop))]
    assert b"".join(blocks) == expected[2 * start : 2 * stop]
    assert all(len(block) == 2 * block_items for block in blocks[:-1])


def test_columns_are_read_once(tmp_path: Path) -> None:
    shape = (8, 6)
    tensor, source, expected = stored(tmp_path, shape, [Box((0, column), (8, 2)) for column in (0, 2, 4)])
    requests: list[int] = []
    inner = source.storage.read_ranges

    def counted(path: str, ranges: Any) -> None:
        requests.extend(len(read.into) for read in ranges)
        inner(path, ranges)

    source.storage = SimpleNamespace(read_ranges=counted)
    assert b"".join(TensorStream(source, tensor).blocks(whole(shape))) == expected
    assert requests == [32, 32, 32]


def test_gaps_and_overlaps_are_named(tmp_path: Path) -> None:
    tensor, _, _ = stored(tmp_path, (4, 2), [Box((0, 0), (1, 2)), Box((2, 0), (2, 2))])
    with pytest.raises(CheckpointError, match=r"f: nothing holds elements 2:4 of w \(shape \[4, 2\]\)"):
        check_whole(tensor, where="f")
    tensor, _, _ = stored(tmp_path, (4, 2), [Box((0, 0), (3, 2)), Box((2, 0), (2, 2))])
    with pytest.raises(CheckpointError, match=r"expected \[2:3, 0:2\] of w once, found it twice"):
        check_whole(tensor, where="f")
