"""Documents to rows of a fixed number of positions. Pure functions of lengths; nothing is read here.

A document of L tokens has L - 1 positions: every token but the last is an input. One of more than ``context`` positions
is cut into pieces that overlap by a token, so that each of its tokens but the first is a target once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BLOCK = 4096
"""Pieces that are packed among themselves: what lies in a row lies close in the corpus."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """Stretches of a sequence of tokens.

    Attributes:
        start: first token, int64 (pieces,).
        length: positions, 1 to context, int64 (pieces,); the tokens of a piece are one more.
    """

    start: NDArray[np.int64]
    length: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Packed:
    """Which pieces lie in which row.

    Attributes:
        piece: numbers of pieces in the order of the rows, int64 (pieces,).
        first: where each row begins in ``piece``, and its length as the last entry, int64 (rows + 1,).
    """

    piece: NDArray[np.int64]
    first: NDArray[np.int64]


def cut_documents(ends: NDArray[np.generic], *, context: int) -> Pieces:
    """All pieces of documents that end at the tokens ``ends``; documents of one token have none."""
    stop = ends.astype(np.int64)
    begin = np.concatenate((np.zeros(1, dtype=np.int64), stop[:-1]))
    positions = np.maximum(stop - begin - 1, 0)
    count = -(-positions // context)
    document = np.repeat(np.arange(len(count)), count)
    nth = np.arange(len(document)) - np.repeat(np.cumsum(count) - count, count)
    start = begin[document] + nth * context
    return Pieces(start, np.minimum(positions[document] - nth * context, context))


def first_pieces(ends: NDArray[np.generic], *, context: int) -> Pieces:
    """The first piece of each document that has one: what does not fit into it is left out."""
    stop = ends.astype(np.int64)
    begin = np.concatenate((np.zeros(1, dtype=np.int64), stop[:-1]))
    positions = stop - begin - 1
    usable = positions > 0
    return Pieces(begin[usable], np.minimum(positions[usable], context))


def pack(length: NDArray[np.int64], *, context: int) -> Packed:
    """Puts pieces into as few rows as best-fit decreasing needs, block by block of neighbouring pieces.

    Source: Ding et al., "Fewer truncations improve language modeling" (2024), section 3: best-fit decreasing with one
    list of open rows for each amount of room.
    """
    pieces: list[int] = []
    first = [0]
    for begin in range(0, len(length), _BLOCK):
        block = length[begin : begin + _BLOCK]
        for row in _pack_block(block, context):
            pieces.extend(begin + number for number in row)
            first.append(len(pieces))
    return Packed(np.array(pieces, dtype=np.int64), np.array(first, dtype=np.int64))


def _pack_block(length: NDArray[np.int64], context: int) -> list[list[int]]:
    rows: list[list[int]] = []
    open_rows: list[list[int]] = [[] for _ in range(context)]  # by room left
    rooms = 0  # bit r is set where a row with room r is open
    for number in np.argsort(-length, kind="stable").tolist():
        need = int(length[number])
        fitting = rooms >> need << need
        if fitting:
            room = (fitting & -fitting).bit_length() - 1
            row = open_rows[room].pop()
            if not open_rows[room]:
                rooms &= ~(1 << room)
            rows[row].append(number)
        else:
            room, row = context, len(rows)
            rows.append([number])
        if room > need:
            open_rows[room - need].append(row)
            rooms |= 1 << (room - need)
    return rows
