"""Carrying deletions out, of ended jobs and of single checkpoints.

The wish is in the job's state, so it is taken up again by whatever controller comes next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.domain.job_records import Condition
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import observe_checkpoint_removed
from trainctl.controller.domain.states import TERMINAL
from trainctl.controller.jobs.book import JobBook
from trainctl.controller.jobs.checkpoint_files import CheckpointFiles
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.journal import JobEvent
from trainctl.controller.jobs.remains import Remains, remains_of, remove
from trainctl.core.errors import FencedError, TrainctlError

_log = logging.getLogger(__name__)
AGAIN_S = 5.0
"""After something refused to go."""
SWEEP_AFTER_S = 2.0
DELETION_FAILED = "DeletionFailed"


class Deletions:
    """Removes what is to be deleted: files first, then the records that say so.

    Args:
        book: the jobs.
        agents: told to remove what they keep.
        jobs_folder: where every job's work folder lies.
        now_s: Unix seconds.
        files: of the checkpoints.
    """

    def __init__(
        self,
        book: JobBook,
        agents: AgentRegistry,
        jobs_folder: Path,
        now_s: Callable[[], float],
        files: CheckpointFiles,
    ) -> None:
        self._book = book
        self._agents = agents
        self._jobs_folder = jobs_folder
        self._now_s = now_s
        self._files = files
        self._wake = asyncio.Event()
        self._sweeps: set[asyncio.Task[None]] = set()
        book.on_change(self._changed)

    async def run(self) -> None:
        """Works until cancelled."""
        while True:
            self._wake.clear()
            due = [entry for entry in self._book.entries() if _is_due(entry.state)]
            failed = [entry for entry in due if not await self._carry_out(entry)]
            try:
                async with asyncio.timeout(AGAIN_S if failed else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _changed(self, before: JobState | None, state: JobState, events: Sequence[JobEvent]) -> None:
        if _is_due(state):
            self._wake.set()

    async def _carry_out(self, entry: JobEntry) -> bool:
        try:
            if _job_is_due(entry.state):
                await self._delete(entry)
            else:
                await self._discard(entry)
        except FencedError:
            raise
        except (TrainctlError, OSError) as error:
            _log.error("of job %s something cannot be deleted: %s; trying again", entry.state.name, error)
            entry.trouble = Condition(
                type=DELETION_FAILED, status="True", reason="Refused", message=str(error), since_s=self._now_s()
            )
            entry.changed.tell()
            return False
        return True

    async def _delete(self, entry: JobEntry) -> None:
        state = entry.state
        async with entry.files:
            await self._book.confirm_leading()
            self._book.reach("controller.before_removal", state)
            await asyncio.to_thread(remove, self._remains(state))
            await asyncio.to_thread(entry.figures.remove)
        await self._book.forget(state.uid)
        _log.info("job %s is deleted", state.name, extra={"job": state.name, "uid": state.uid})
        for session in self._agents.sessions():
            session.desire()
        sweep = asyncio.create_task(self._sweep(state), name=f"sweep-{state.uid}")
        self._sweeps.add(sweep)
        sweep.add_done_callback(self._sweeps.discard)

    def _remains(self, state: JobState) -> Remains:
        others = [other for other in self._book.states() if other.uid != state.uid]
        return remains_of(state, others, jobs_folder=self._jobs_folder)

    async def _sweep(self, state: JobState) -> None:
        """Once more, when all agents have heard of it: last lines of logs may have been on their way."""
        await asyncio.sleep(SWEEP_AFTER_S)
        try:
            await self._book.confirm_leading()
            await asyncio.to_thread(remove, self._remains(state))
        except (TrainctlError, OSError) as error:
            _log.warning("of job %s something is left: %s", state.name, error)

    async def _discard(self, entry: JobEntry) -> None:
        for ref in entry.state.doomed:
            await self._book.confirm_leading()
            self._book.reach("controller.before_removal", entry.state)
            await asyncio.to_thread(self._files.discard, ref)
            await self._book.apply(entry.state.uid, partial(observe_checkpoint_removed, ref=ref))
        if entry.trouble is not None and entry.trouble.type == DELETION_FAILED:
            entry.trouble = None
            entry.changed.tell()


def _is_due(state: JobState) -> bool:
    return _job_is_due(state) or bool(state.doomed)


def _job_is_due(state: JobState) -> bool:
    return state.deletion is not None and state.phase in TERMINAL
