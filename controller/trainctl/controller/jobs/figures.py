"""Step figures of one job: telemetry in a file of JSON lines, the surviving lineage in memory."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TextIO

from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.json_text import NoJsonError, parse_json
from trainctl.core.records.step import StepFigures

FIGURES_KEPT = 200_000
_log = logging.getLogger(__name__)


class FigureLog:
    """One step has one figure: that of the newest lineage, in it that of the newest generation.

    A lineage that begins at step ``s`` hides what older lineages did from ``s`` on, whether it comes before or after.
    """

    def __init__(self, path: Path, *, kept: int = FIGURES_KEPT) -> None:
        self._path = path
        self.kept = kept
        self._by_step: dict[int, StepFigures] = {}
        self._starts: dict[int, int] = {}
        self._broken = False
        self._torn = False

    @property
    def count(self) -> int:
        """Steps that have a figure."""
        return len(self._by_step)

    def load(self) -> None:
        """Reads the file; a last line that was cut off by a crash is left out."""
        with contextlib.suppress(FileNotFoundError), self._path.open("rb") as lines:
            for line in lines:
                self._torn = not line.endswith(b"\n")
                try:
                    self._accept(from_wire(StepFigures, parse_json(line)))
                except (NoJsonError, WireError):
                    _log.warning(
                        "a line of step figures cannot be read, and is left out", extra={"path": str(self._path)}
                    )

    def add(self, figures: Iterable[StepFigures]) -> list[StepFigures]:
        """Takes figures in, appends the new ones to the file, and returns those that were news, by step."""
        fresh = [one for one in sorted(figures, key=lambda f: (f.lineage, f.step)) if self._accept(one)]
        if fresh:
            self._append(fresh)
        return fresh

    def begin_lineage(self, lineage: int, *, after_step: int) -> None:
        """A lineage goes on after this step: what older ones did beyond it is given up, and no longer shown."""
        if self._starts.get(lineage, after_step + 2) > after_step + 1:
            self._start(lineage, after_step + 1)

    def after(self, step: int, limit: int = 0) -> list[StepFigures]:
        """Figures of later steps in step order, at most ``limit`` (0: all)."""
        steps = sorted(known for known in self._by_step if known > step)
        return [self._by_step[known] for known in (steps[:limit] if limit else steps)]

    def remove(self) -> None:
        """Forgets everything, and the file."""
        self._path.unlink(missing_ok=True)
        self._by_step.clear()

    def _accept(self, one: StepFigures) -> bool:
        if any(lineage > one.lineage and start <= one.step for lineage, start in self._starts.items()):
            return False
        known = self._by_step.get(one.step)
        if known is not None and (known.lineage, known.generation) >= (one.lineage, one.generation):
            return False
        if one.step < self._starts.get(one.lineage, one.step + 1):
            self._start(one.lineage, one.step)
        self._by_step[one.step] = one
        if len(self._by_step) > self.kept:
            del self._by_step[min(self._by_step)]
        return True

    def _start(self, lineage: int, step: int) -> None:
        self._starts[lineage] = step
        for hidden in [s for s, f in self._by_step.items() if s >= step and f.lineage < lineage]:
            del self._by_step[hidden]

    def _append(self, fresh: Sequence[StepFigures]) -> None:
        text = "".join(json.dumps(to_wire(one), separators=(",", ":")) + "\n" for one in fresh)
        try:
            with self._open() as file:
                # A crash may have left a line without its end: close it, so that only that one is lost.
                file.write("\n" + text if self._torn else text)
            self._broken = self._torn = False
        except OSError as error:
            if not self._broken:
                _log.error("step figures cannot be written, they stay in memory only: %s", error)
            # Part of it may have been written.
            self._broken = self._torn = True

    def _open(self) -> TextIO:
        try:
            return self._path.open("a")
        except FileNotFoundError:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return self._path.open("a")
