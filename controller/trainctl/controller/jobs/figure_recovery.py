"""Step figures that this controller never received: those that went to an earlier leader are in the jobs' records."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from trainctl.checkpoint.storage.line_log import part_numbers, part_path
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.controller.domain.reconcile import observe_figures
from trainctl.controller.jobs.book import JobBook, is_live
from trainctl.controller.jobs.entry import JobEntry
from trainctl.core.codec import WireError, from_wire
from trainctl.core.errors import TrainctlError
from trainctl.core.records.places import STEPS, records_uri
from trainctl.core.records.step import StepFigures

_log = logging.getLogger(__name__)
_TRIES = 8
_AGAIN_S = 2.0
"""The records of a job on remote storage are some seconds behind."""


class FigureRecovery:
    """Fills holes in the figures once a term has begun; gives up what the records do not have either.

    Args:
        book: the jobs.
        now_s: Unix seconds that never go back.
    """

    def __init__(self, book: JobBook, now_s: Callable[[], float]) -> None:
        self._book = book
        self._now_s = now_s

    async def run(self) -> None:
        """Works until there is no hole any more, or nothing to fill it with."""
        for _ in range(_TRIES):
            incomplete = [entry for entry in self._book.entries() if _has_holes(entry)]
            if not incomplete:
                return
            for entry in incomplete:
                await self._fill(entry)
            await asyncio.sleep(_AGAIN_S)

    async def _fill(self, entry: JobEntry) -> None:
        state = entry.state
        records = records_uri(state.spec.spec.results, workdir=state.workdir, job_uid=state.uid)
        try:
            found = await asyncio.to_thread(read_figures, records) if records else []
        except (OSError, TrainctlError) as error:
            _log.warning("job %s: figures in %s cannot be read: %s", state.name, records, error)
            return
        fresh = entry.figures.add(found)
        if not fresh or not self._book.knows(state.uid):
            return
        _log.info("job %s: %d step figures taken from its records", state.name, len(fresh))
        entry.changed.tell()
        if is_live(entry.state):
            await self._book.apply(state.uid, partial(observe_figures, figures=fresh, now_s=self._now_s()))


def read_figures(records: str) -> list[StepFigures]:
    """All figures in ``steps.jsonl`` of a job's records, as they were written; damaged lines are left out.

    Raises:
        OSError, TrainctlError: the storage cannot be read.
    """
    storage = open_storage(records)
    names: Sequence[str] = storage.list("")
    found: list[StepFigures] = []
    for part in part_numbers(names, STEPS, ".jsonl"):
        found += _figures_in(storage.read(part_path(STEPS, ".jsonl", part)))
    return found


def _figures_in(text: bytes) -> Iterator[StepFigures]:
    for line in text.splitlines():
        try:
            value = json.loads(line)
            if value.pop("event") == "step":
                value.pop("tokensPerS", None)
                yield from_wire(StepFigures, value)
        except (ValueError, KeyError, AttributeError, TypeError, WireError):
            continue


def _has_holes(entry: JobEntry) -> bool:
    return entry.figures.count < min(entry.state.progress.step, entry.figures.kept)
