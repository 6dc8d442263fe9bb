"""Step figures that this controller never received: those that went to an earlier leader are in the jobs' records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from trainctl.checkpoint.storage.beneath import read_beneath
from trainctl.checkpoint.storage.line_log import part_numbers, part_path
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_figures
from trainctl.controller.domain.step_ranges import contains, count
from trainctl.controller.jobs.book import JobBook, is_live
from trainctl.controller.jobs.entry import JobEntry
from trainctl.core.codec import WireError, from_wire
from trainctl.core.errors import TrainctlError
from trainctl.core.json_text import NoJsonError, parse_object
from trainctl.core.records.places import STEPS, records_uri
from trainctl.core.records.step import StepFigures

_log = logging.getLogger(__name__)
TRIES = 8
"""Until the rest is given up."""
AGAIN_S = 2.0
"""The records of a job on remote storage are some seconds behind."""
MAX_PART_BYTES = 128 * 1024 * 1024
"""Of one part of a job's figures; workers begin a new one long before."""
AT_ONCE = 500
"""Figures dealt with before others have their turn."""


class FigureRecovery:
    """Fills holes in the figures, which come up after a change of leaders; gives up what no records have.

    Args:
        book: the jobs.
        now_s: Unix seconds that never go back.
    """

    def __init__(self, book: JobBook, now_s: Callable[[], float]) -> None:
        self._book = book
        self._now_s = now_s
        self._tries: dict[str, tuple[int, int]] = {}

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            for entry in self._book.entries():
                if self._is_due(entry):
                    await self._fill(entry)
            await asyncio.sleep(AGAIN_S)

    def _is_due(self, entry: JobEntry) -> bool:
        """Whether figures are missing that were not looked for in vain too often."""
        uid, missing = entry.state.uid, _missing(entry) + count(entry.state.progress.missed)
        known, tried = self._tries.get(uid, (0, 0))
        tried = tried if missing == known else 0
        self._tries[uid] = (missing, tried + 1)
        return missing > 0 and tried < TRIES

    async def _fill(self, entry: JobEntry) -> None:
        fresh: list[StepFigures] = []
        for some in _by_turns(await self._recorded(entry.state) if _missing(entry) else ()):
            fresh += entry.figures.add(some)
            await asyncio.sleep(0)
        missed = entry.state.progress.missed
        known = {one.step for one in fresh}
        late = [one for one in entry.figures.after(0) if one.step not in known and contains(missed, one.step)]
        if not (fresh or late) or not self._book.knows(entry.state.uid):
            return
        _log.info("job %s: %d step figures taken from its records", entry.state.name, len(fresh))
        entry.changed.tell()
        if is_live(entry.state) or missed:
            for news in _by_turns(fresh + late):
                look = partial(observe_figures, figures=news, now_s=self._now_s(), live=False)
                await self._book.apply(entry.state.uid, look)
                await asyncio.sleep(0)

    async def _recorded(self, state: JobState) -> list[StepFigures]:
        records = records_uri(state.spec.spec.results, workdir=state.workdir, job_uid=state.uid)
        try:
            return await asyncio.to_thread(read_figures, records) if records else []
        except (OSError, TrainctlError) as error:
            _log.warning("job %s: figures in %s cannot be read: %s", state.name, records, error)
            return []


def read_figures(records: str) -> list[StepFigures]:
    """All figures in ``steps.jsonl`` of a job's records, as they were written; damaged lines are left out.

    Raises:
        OSError, TrainctlError: the storage cannot be read.
    """
    storage = open_storage(records)
    names: Sequence[str] = storage.list("")
    found: list[StepFigures] = []
    for part in part_numbers(names, STEPS, ".jsonl"):
        found += _figures_in(read_beneath(storage, part_path(STEPS, ".jsonl", part), MAX_PART_BYTES))
    return found


def _figures_in(text: bytes) -> Iterator[StepFigures]:
    for line in text.splitlines():
        try:
            value = parse_object(line)
            if value.pop("event") == "step":
                value.pop("tokensPerS", None)
                yield from_wire(StepFigures, value)
        except (NoJsonError, KeyError, WireError):
            continue


def _by_turns(figures: Sequence[StepFigures]) -> Iterator[Sequence[StepFigures]]:
    """A few at a time: there may be hundreds of thousands, and a leader without a turn for seconds is none any more."""
    for begin in range(0, len(figures), AT_ONCE):
        yield figures[begin : begin + AT_ONCE]


def _missing(entry: JobEntry) -> int:
    """How many steps of the job have no figure."""
    state, figures = entry.state, entry.figures
    begun_after = state.resume.step if state.resume is not None else 0
    return max(0, min(state.progress.step - begun_after, figures.kept) - figures.count)
