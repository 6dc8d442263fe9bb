"""A drawing of characters: lines in dots finer than a character where the terminal has Braille, else in asterisks."""

from __future__ import annotations

from collections.abc import Iterable

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""Bits of the dots of a character, by row and column. Source: Unicode, block Braille Patterns."""


class Canvas:
    """``columns`` by ``rows`` characters.

    Args:
        columns: width.
        rows: height.
        ascii_only: without Braille.
    """

    def __init__(self, columns: int, rows: int, *, ascii_only: bool) -> None:
        self._ascii = ascii_only
        self._across, self._down = (1, 1) if ascii_only else (2, 4)
        self._bits = [[0] * columns for _ in range(rows)]
        self._signs: dict[tuple[int, int], tuple[str, str]] = {}
        self._colors: dict[tuple[int, int], str] = {}
        self.columns, self.rows = columns, rows

    @property
    def width(self) -> int:
        """Dots across."""
        return self.columns * self._across

    @property
    def height(self) -> int:
        """Dots down."""
        return self.rows * self._down

    def line(self, begin: tuple[int, int], end: tuple[int, int], color: str) -> None:
        """Dots from one to the other, both as (across, down) from the upper left."""
        (x0, y0), (x1, y1) = begin, end
        count = max(abs(x1 - x0), abs(y1 - y0), 1)
        for index in range(count + 1):
            self.dot(round(x0 + (x1 - x0) * index / count), round(y0 + (y1 - y0) * index / count), color)

    def dot(self, across: int, down: int, color: str) -> None:
        """Sets one dot; nothing happens outside."""
        if not (0 <= across < self.width and 0 <= down < self.height):
            return
        column, row = across // self._across, down // self._down
        self._bits[row][column] |= 1 if self._ascii else _DOTS[down % 4][across % 2]
        self._colors[row, column] = color

    def sign(self, across: int, down: int, character: str, color: str, *, over: bool = True) -> None:
        """A character in the place of a dot; ``over``: also where dots are."""
        column, row = across // self._across, down // self._down
        free = not self._bits[row][column] and (row, column) not in self._signs
        if over or free:
            self._signs[row, column] = (character, color)

    def lines(self) -> Iterable[list[tuple[str, str]]]:
        """By row, characters with the name of their colour (empty: none)."""
        for row, bits in enumerate(self._bits):
            yield [self._cell(row, column, bit) for column, bit in enumerate(bits)]

    def _cell(self, row: int, column: int, bits: int) -> tuple[str, str]:
        sign = self._signs.get((row, column))
        if sign is not None:
            return sign
        if not bits:
            return " ", ""
        return ("*" if self._ascii else chr(_BRAILLE + bits)), self._colors[row, column]
