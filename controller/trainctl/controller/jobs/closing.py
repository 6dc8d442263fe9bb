"""An ended job's last state and its events, written to its records: to be read when this controller is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Sequence

from google.protobuf import json_format

from trainctl.checkpoint.storage.opening import open_storage
from trainctl.controller.agents.registry import AgentRegistry
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.jobs.book import JobBook, is_live
from trainctl.controller.jobs.entry import JobEntry
from trainctl.controller.jobs.job_message import job_message, records_of
from trainctl.controller.jobs.journal import JobEvent
from trainctl.controller.store.port import StoreClosedError
from trainctl.controller.tasks import to_the_end
from trainctl.core.codec import to_wire
from trainctl.core.errors import FencedError, TrainctlError, UnavailableError
from trainctl.core.records.places import EVENTS_FILE, JOB_FILE

_log = logging.getLogger(__name__)
AGAIN_S = 5.0
"""After a storage refused."""
ASK_AGAIN_S = 0.5
"""After the store did not answer."""
MAX_TRIES = 10
"""Of one controller's life; the next one tries again."""


class Closing:
    """Writes ``job.json`` (the job as the API shows it) and ``events.jsonl`` of every job that has ended, once.

    Args:
        book: the jobs.
        agents: what is shown of workers.
    """

    def __init__(self, book: JobBook, agents: AgentRegistry) -> None:
        self._book = book
        self._agents = agents
        self._tries: dict[str, int] = {}
        self._wake = asyncio.Event()
        book.on_change(self._changed)

    async def run(self) -> None:
        """Works until cancelled; begins with the jobs that an earlier controller left open."""
        self._tries = {entry.state.uid: 0 for entry in self._book.entries() if not is_live(entry.state)}
        while True:
            self._wake.clear()
            for uid in tuple(self._tries):
                await self._try(uid)
            try:
                async with asyncio.timeout(AGAIN_S if self._tries else None):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _changed(self, before: JobState | None, state: JobState, events: Sequence[JobEvent]) -> None:
        if before is not None and is_live(before) and not is_live(state):
            self._tries[state.uid] = 0
            self._wake.set()

    async def _try(self, uid: str) -> None:
        entry = next((entry for entry in self._book.entries() if entry.state.uid == uid), None)
        if entry is None:
            del self._tries[uid]
            return
        try:
            async with entry.files:
                if entry.state.deletion is None:
                    await self._book.confirm_leading()
                    await to_the_end(self._close(entry))
            del self._tries[uid]
        except FencedError:
            raise
        except (OSError, TrainctlError) as error:
            self._tries[uid] += 1
            if self._tries[uid] == 1:
                _log.error("job %s: its records cannot be closed, trying again: %s", entry.state.name, error)
            if self._tries[uid] >= MAX_TRIES:
                del self._tries[uid]

    async def _close(self, entry: JobEntry) -> None:
        try:
            await asyncio.to_thread(self._write, entry, self._job(entry), _lines(entry))
        finally:
            if not await self._is_stored(entry.state):
                await asyncio.to_thread(_take_back, entry)
                _log.warning("job %s was deleted while it was closed: nothing is left of it", entry.state.name)

    async def _is_stored(self, state: JobState) -> bool:
        """Asked until the store answers: whoever was frozen finds its connections broken.

        A controller that ends asks no more, and leaves what it wrote: whoever leads next closes the job again.
        """
        while True:
            try:
                return await self._book.is_stored(state)
            except StoreClosedError:
                return True
            except UnavailableError:
                await asyncio.sleep(ASK_AGAIN_S)

    def _job(self, entry: JobEntry) -> bytes:
        message = job_message(entry.state, self._agents.view(), now_s=entry.state.ended_s, revision=entry.revision)
        return json.dumps(json_format.MessageToDict(message), indent=2).encode() + b"\n"

    def _write(self, entry: JobEntry, job: bytes, events: bytes) -> None:
        """The job last: when it is there, so are the events. Nothing is overwritten, nor made where the folder is gone.

        So a leader that was frozen in here, and wakes up when another one has closed the job, changes nothing.
        """
        state = entry.state
        records = records_of(state)
        if not records or (not state.spec.spec.results.uri and not os.path.isdir(state.workdir)):
            return
        storage = open_storage(records)
        if storage.size(JOB_FILE) is None:
            self._book.reach("controller.before_closing", state)
            for name, content in ((EVENTS_FILE, events), (JOB_FILE, job)):
                with contextlib.suppress(FileExistsError):
                    storage.create_file(name, content)


def _lines(entry: JobEntry) -> bytes:
    return b"".join(json.dumps(to_wire(event)).encode() + b"\n" for event in entry.journal.after(0))


def _take_back(entry: JobEntry) -> None:
    """While they were written the job was deleted, by another leader: nothing shall be left of it."""
    folder, _, name = records_of(entry.state).rpartition("/")
    if folder:
        storage = open_storage(folder)
        storage.delete(f"{name}/{EVENTS_FILE}")
        storage.delete(f"{name}/{JOB_FILE}")
        storage.delete_if_empty(name)
        storage.delete_if_empty("")
