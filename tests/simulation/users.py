"""People who ask for things: each request goes to the controllers in turn until one answers, under one request id."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format

from simulation.network import Network
from simulation.virtual_loop import Process
from trainctl.core.errors import NotFoundError, TrainctlError, UnavailableError
from trainctl.protos.v1 import job_pb2, records_pb2

ANSWER_S = 10.0
AGAIN_S = 0.3
PATIENCE_S = 400.0


@dataclass(slots=True)
class Asked:
    """A request and what became of it; ``answer`` is a uid or node, the code of an error, or empty: nobody knows."""

    at_s: float
    method: str
    request_id: str
    subject: str
    answer: str = ""
    tries: int = 0
    answered_s: float = 0.0


@dataclass(slots=True)
class Users:
    """Everybody who uses the command line.

    Attributes:
        asked: all requests, in the order they were made.
    """

    network: Network
    addresses: Sequence[str]
    process: Process = field(default_factory=lambda: Process("user"))
    asked: list[Asked] = field(default_factory=list)
    tasks: dict[asyncio.Task[None], None] = field(default_factory=dict)

    def submit(self, job: dict[str, Any], request_id: str, *, first: int = 0) -> None:
        message = json_format.ParseDict(job, records_pb2.TrainJob())
        request = job_pb2.CreateJobRequest(job=message, request_id=request_id)
        self._ask("CreateJob", request, request_id, job["metadata"]["name"], first)

    def verb(self, method: str, subject: str, request_id: str, /, *, first: int = 0, **fields: Any) -> None:
        """Asks for something about a job, or a node."""
        kind = getattr(job_pb2, f"{method}Request")
        known = kind.DESCRIPTOR.fields_by_name
        if "request_id" in known:
            fields["request_id"] = request_id
        fields["node" if "node" in known else "name"] = subject
        self._ask(method, kind(**fields), request_id, subject, first)

    async def jobs(self) -> list[job_pb2.Job] | None:
        """All jobs, if somebody leads."""
        for address in self.addresses:
            try:
                call = self.network.call("user", address, "ListJobs", job_pb2.ListJobsRequest(), timeout_s=ANSWER_S)
                return list((await call).jobs)
            except TrainctlError:
                continue
        return None

    async def doubt(self) -> str:
        """What whoever leads doubts of the store, as ``trainctl doctor`` shows it."""
        for address in self.addresses:
            try:
                request = job_pb2.GetVersionRequest()
                reply = await self.network.call("user", address, "GetVersion", request, timeout_s=ANSWER_S)
            except TrainctlError:
                continue
            return str(reply.doubt)
        return ""

    @property
    def waiting(self) -> bool:
        """Somebody has had no answer yet."""
        return bool(self.tasks)

    def _ask(self, method: str, request: Any, request_id: str, subject: str, first: int) -> None:
        asked = Asked(asyncio.get_running_loop().time(), method, request_id, subject)
        self.asked.append(asked)
        task = self.process.spawn(self._until_answered(asked, request, first))
        self.tasks[task] = None
        task.add_done_callback(lambda done: self.tasks.pop(done, None))

    async def _until_answered(self, asked: Asked, request: Any, turn: int) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < asked.at_s + PATIENCE_S:
            address = self.addresses[turn % len(self.addresses)]
            asked.tries += 1
            try:
                reply = await self.network.call("user", address, asked.method, request, timeout_s=ANSWER_S)
            except UnavailableError:
                turn += 1
                await asyncio.sleep(AGAIN_S)
                continue
            except NotFoundError:
                asked.answer = "NOT_FOUND"
                return
            except TrainctlError as error:
                if error.code in _TRY_AGAIN:
                    turn += 1
                    await asyncio.sleep(AGAIN_S)
                    continue
                asked.answer = error.code
                return
            asked.answer = _subject_of(reply)
            asked.answered_s = loop.time()
            return


def _subject_of(reply: Any) -> str:
    """The uid of the job that an answer is about, or the name of the node."""
    for name in ("job", "node"):
        if name in reply.DESCRIPTOR.fields_by_name:
            found = getattr(reply, name)
            return str(found.uid if name == "job" else found.node)
    return str(reply.uid)


_TRY_AGAIN = frozenset({"FENCED", "REVISION_MOVED", "STORE_FULL", "ABORTED"})
