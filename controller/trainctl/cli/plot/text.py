"""A plot as lines of text, as wide as the terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from trainctl.cli.plot.canvas import Canvas
from trainctl.cli.plot.curves import Curve, Mark, Panel, Plot, Point
from trainctl.cli.render.figures import count
from trainctl.cli.terminal.style import Style

COLORS = ("cyan", "yellow", "magenta", "green")
MARK_COLOR = "red"
MIN_COLUMNS, MIN_ROWS = 20, 4
_LABEL_WIDTH = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the terminal can do.

    Attributes:
        columns: its width.
        rows: of one panel.
        ascii_only: it shows nothing else.
        style: paints, or does not.
    """

    columns: int
    rows: int
    ascii_only: bool
    style: Style


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    dots: int

    def __call__(self, value: float) -> int:
        share = (value - self.low) / (self.high - self.low)
        return min(max(round(share * (self.dots - 1)), 0), self.dots - 1)


def draw_text(plot: Plot, look: Look) -> list[str]:
    """The panels, the axis of steps, a legend, and a line for each recovery."""
    paint = look.style.paint
    lines = [paint(plot.title, "bold")]
    for panel in plot.panels:
        lines += _panel(plot, panel, look)
    for index, mark in enumerate(plot.marks, 1):
        lines += [paint(line, MARK_COLOR) for line in _describe(index, mark, look)]
    return lines


def _describe(index: int, mark: Mark, look: Look) -> list[str]:
    arrow = "->" if look.ascii_only else "→"
    text = f"{index}  after step {mark.step}: {mark.fault} {arrow} {mark.answer}"
    return textwrap.wrap(text, look.columns, subsequent_indent=" " * (len(str(index)) + 2))


def _panel(plot: Plot, panel: Panel, look: Look) -> list[str]:
    canvas = Canvas(
        max(look.columns - _LABEL_WIDTH - 2, MIN_COLUMNS), max(look.rows, MIN_ROWS), ascii_only=look.ascii_only
    )
    first, last = plot.steps
    low, high = _range(panel)
    across = _Scale(first, max(last, first + 1), canvas.width)
    down = _Scale(high, low, canvas.height)
    for index, curve in enumerate(panel.curves):
        points = [(across(step), value) for step, value in curve.points]
        if curve.metric.dotted:
            for column, value in points:
                canvas.sign(column, down(value), _dot(look), COLORS[index % len(COLORS)])
        else:
            _trace(canvas, points, down, COLORS[index % len(COLORS)])
    columns = _mark_columns(plot.marks, (first, last), across)
    for column in columns.values():
        for row in range(0, canvas.height, max(1, canvas.height // canvas.rows)):
            canvas.sign(column, row, ":" if look.ascii_only else "┊", MARK_COLOR, over=False)
    edge = "|" if look.ascii_only else "│"
    middle, bottom = canvas.rows // 2, canvas.rows - 1
    labels = {0: high, middle: high + (low - high) * middle / bottom, bottom: low}
    lines = [_legend(panel, look)]
    for row, cells in enumerate(canvas.lines()):
        label = _number(labels[row]) if row in labels else ""
        lines.append(f"{label:>{_LABEL_WIDTH}} {edge}{''.join(_painted(cells, look.style))}")
    return [*lines, *_axis(canvas, (first, last), columns, look)]


def _trace(canvas: Canvas, points: Sequence[Point], down: _Scale, color: str) -> None:
    """In each column of dots all values from the least to the greatest, joined with the column before."""
    before: tuple[int, int] | None = None
    for column, group in groupby(points, key=lambda point: point[0]):
        values = [down(value) for _, value in group]
        canvas.line((column, min(values)), (column, max(values)), color)
        if before is not None:
            canvas.line(before, (column, values[0]), color)
        before = (column, values[-1])


def _range(panel: Panel) -> tuple[float, float]:
    """Least and greatest value; never the same."""
    values = [value for curve in panel.curves for _, value in curve.points]
    low, high = min(values), max(values)
    if low == high:
        margin = abs(low) * 0.1 or 1.0
        return low - margin, high + margin
    return low, high


def _mark_columns(marks: Sequence[Mark], steps: tuple[int, int], across: _Scale) -> dict[int, int]:
    """Column of dots by the number of the mark; marks beyond the curves (a run that starts again) are left out."""
    first, last = steps
    return {index: across(mark.step) for index, mark in enumerate(marks, 1) if first - 1 <= mark.step <= last + 1}


def _axis(canvas: Canvas, steps: tuple[int, int], columns: dict[int, int], look: Look) -> list[str]:
    """The line below a panel with the numbers of the marks, and the steps below it."""
    dots = canvas.width // canvas.columns
    rule = ["-" if look.ascii_only else "─"] * canvas.columns
    painted = list(rule)
    for index, column in columns.items():
        place = column // dots
        for offset, digit in enumerate(str(index)[: canvas.columns - place]):
            painted[place + offset] = look.style.paint(digit, MARK_COLOR)
    corner = "+" if look.ascii_only else "└"
    first, last = steps
    ticks = f"{first}{'step':^{max(canvas.columns - len(str(first)) - len(str(last)), 6)}}{last}"
    return [f"{'':>{_LABEL_WIDTH}} {corner}{''.join(painted)}", f"{'':>{_LABEL_WIDTH}}  {ticks}"]


def _legend(panel: Panel, look: Look) -> str:
    names = [
        look.style.paint(f"{_dot(look) if curve.metric.dotted else _stroke(look)} {_ends(curve)}", color)
        for curve, color in zip(panel.curves, COLORS * len(panel.curves), strict=False)
    ]
    return f"{'':>{_LABEL_WIDTH}}  {'   '.join(names)}"


def _ends(curve: Curve) -> str:
    first, last = curve.points[0][1], curve.points[-1][1]
    return f"{curve.metric.label} {_number(first)} .. {_number(last)}"


def _painted(cells: Sequence[tuple[str, str]], style: Style) -> Iterator[str]:
    """Neighbours of one colour are painted together; blanks at the end are left out."""
    filled = len(cells)
    while filled and cells[filled - 1][0] == " ":
        filled -= 1
    for color, group in groupby(cells[:filled], key=lambda cell: cell[1]):
        text = "".join(character for character, _ in group)
        yield style.paint(text, color) if color else text


def _dot(look: Look) -> str:
    return "o" if look.ascii_only else "●"


def _stroke(look: Look) -> str:
    return "*" if look.ascii_only else "⠒"


def _number(value: float) -> str:
    """At most eight characters: ``3.2146``, ``12.3k``, ``3.2e-05``."""
    size = abs(value)
    if size >= 1000:
        return count(value)
    if size != 0 and size < 1e-3:
        return f"{value:.1e}"
    digits = max(0, 4 - max(0, math.floor(math.log10(size)) if size else 0))
    return f"{value:.{digits}f}"
