"""Rows of a token sequence: what a sample consists of, by packing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainctl.parallel.data.batch import Batch, packed_rows, whole_rows
from trainctl.parallel.data.packing import Packed, Pieces, cut_documents, first_pieces, pack

Ids = NDArray[np.generic]


class Rows(Protocol):
    """Samples before they are a batch.

    Attributes:
        count: how many there are.
    """

    count: int

    def row(self, number: int) -> Sequence[Ids]:
        """The pieces of a row; L tokens of a piece take L - 1 positions."""
        ...


class Windows:
    """Documents joined and cut into windows of ``context`` inputs and, shifted by one, as many targets.

    Inputs of neighbouring windows do not overlap; the last target of one is the first input of the next.

    Args:
        ids: shape (tokens,).
        context: targets of a window.
        keep_rest: the last window may have fewer.
    """

    def __init__(self, ids: Ids, *, context: int, keep_rest: bool) -> None:
        self._ids = ids
        self._context = context
        positions = max(len(ids) - 1, 0)
        self.count = -(-positions // context) if keep_rest else positions // context

    def row(self, number: int) -> Sequence[Ids]:
        """One window."""
        start = number * self._context
        return (self._ids[start : start + self._context + 1],)


class PackedPieces:
    """Pieces of documents side by side.

    Args:
        ids: shape (tokens,).
        pieces: stretches of ``ids``.
        packed: their rows; None: one piece a row.
    """

    def __init__(self, ids: Ids, pieces: Pieces, packed: Packed | None) -> None:
        self._ids = ids
        self._pieces = pieces
        self._packed = packed
        self.count = len(pieces.start) if packed is None else len(packed.first) - 1

    def row(self, number: int) -> Sequence[Ids]:
        """The pieces of one row."""
        packed = self._packed
        if packed is None:
            return (self._piece(number),)
        return [self._piece(piece) for piece in packed.piece[packed.first[number] : packed.first[number + 1]]]

    def _piece(self, number: int) -> Ids:
        start = self._pieces.start[number]
        return self._ids[start : start + self._pieces.length[number] + 1]


def rows_of(ids: Ids, ends: NDArray[np.generic], *, packing: str, context: int, keep_rest: bool = False) -> Rows:
    """The rows of documents that end at the tokens ``ends``.

    Args:
        ids: tokens of all documents, shape (tokens,).
        ends: behind the last token of each document, rising, shape (documents,).
        packing: as in the spec.
        context: positions of a row.
        keep_rest: with ``stream``, the last row may be shorter.
    """
    if packing == "stream":
        return Windows(ids, context=context, keep_rest=keep_rest)
    if packing == "pad":
        return PackedPieces(ids, first_pieces(ends, context=context), None)
    pieces = cut_documents(ends, context=context)
    return PackedPieces(ids, pieces, pack(pieces.length, context=context))


def to_batch(rows: Sequence[Sequence[Ids]], *, context: int) -> Batch:
    """Rows as a batch in fresh memory; full windows come without documents, so that plain causal attention does."""
    if all(len(row) == 1 and len(row[0]) == context + 1 for row in rows):
        rows_BS = np.empty((len(rows), context + 1), dtype=np.int64)
        for row_S, (ids,) in zip(rows_BS, rows, strict=True):
            row_S[:] = ids
        return whole_rows(rows_BS)
    return packed_rows(rows, context=context)
