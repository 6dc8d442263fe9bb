"""A plot as a file: PNG, SVG or PDF, by matplotlib."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from trainctl.cli.plot.curves import Panel, Plot
from trainctl.core.errors import PermissionDeniedError, PreconditionError, UsageError
from trainctl.core.texts import quoted

SUFFIXES = (".png", ".svg", ".pdf")
_COLORS = ("#2563eb", "#d97706", "#7c3aed", "#059669")
_LABEL_WIDTH = 30
_LABELLED = 8
"""Recoveries that are described; of more, the lines have to do."""


def picture_path(wanted: str, *, job: str) -> Path:
    """The file that ``-o png`` or ``-o FILE.png`` means.

    Raises:
        UsageError: it is of no known kind.
    """
    path = Path(f"{job}.{wanted}") if f".{wanted}" in SUFFIXES else Path(wanted).expanduser()
    if path.suffix.lower() not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise UsageError(
            f"-o: expected png, svg, pdf or a file that ends in {known}, found {quoted(wanted)}",
            hint=f"for example -o {path.stem or job}.png",
        )
    return path


def draw_picture(plot: Plot, path: Path) -> None:
    """Draws the panels one below the other, with a line for each recovery and what was done about it.

    Raises:
        PreconditionError: matplotlib is not installed.
        PermissionDeniedError: the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        hint = "pip install 'trainctl-orchestrator[plot]'; without -o the plot is drawn in the terminal"
        raise PreconditionError("a picture needs matplotlib, which is not installed", hint=hint) from error
    mpl.use("Agg")
    from matplotlib.figure import Figure

    height = 1.0 + (4.0 if len(plot.panels) == 1 else 2.8 * len(plot.panels))
    figure = Figure(figsize=(10, height), dpi=120, layout="constrained")
    panels = figure.subplots(len(plot.panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(panels, plot.panels, strict=True):
        _draw(axes, panel)
        for mark in plot.marks:
            axes.axvline(mark.step, color="#dc2626", linestyle="--", linewidth=1)
    _describe(panels[0], plot)
    panels[0].set_title(plot.title)
    panels[-1].set_xlabel("step")
    try:
        figure.savefig(path)  # pyright: ignore[reportUnknownMemberType]  matplotlib leaves its **kwargs without types
    except OSError as error:
        reason = error.strerror or str(error)
        raise PermissionDeniedError(f"{path} cannot be written: {reason}", hint="give another file with -o") from error


def _draw(axes: Any, panel: Panel) -> None:
    for curve, color in zip(panel.curves, _COLORS * len(panel.curves), strict=False):
        steps, values = zip(*curve.points, strict=True)
        kind = "o-" if curve.metric.dotted else "-"
        axes.plot(steps, values, kind, color=color, linewidth=1.4, markersize=4, label=curve.metric.label)
    axes.set_ylabel(panel.unit)
    axes.grid(alpha=0.3)
    if len(panel.curves) > 1:
        axes.legend(loc="lower left")


def _describe(axes: Any, plot: Plot) -> None:
    if len(plot.marks) > _LABELLED:
        return
    _, top = axes.get_ylim()
    for index, mark in enumerate(plot.marks):
        text = f"{textwrap.fill(mark.fault, _LABEL_WIDTH)}\n{mark.answer}"
        # Every second label hangs lower, so that two failures close together can both be read.
        first, last = plot.steps
        to_the_left = mark.step > first + 0.75 * (last - first)
        offset = (-4 if to_the_left else 4, -4 - 44 * (index % 2))
        align = "right" if to_the_left else "left"
        axes.annotate(text, (mark.step, top), xytext=offset, textcoords="offset points", va="top", ha=align, fontsize=8)
