"""What an agent says to its controllers and makes of their answers, and when: the protocol without the connection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

from trainctl.agent.backoff import Backoff
from trainctl.agent.instructions import Instructions
from trainctl.agent.outbox import Batch, FiguresOutbox, Report, ReportsOutbox
from trainctl.agent.patience import Patience
from trainctl.core.errors import TrainctlError, UnavailableError
from trainctl.core.records.worker import CheckpointReport, WorkerDesired, WorkerObserved
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import agent_pb2, records_pb2

_LOG = logging.getLogger(__name__)
COALESCE_S = 0.005
"""What else happens within so long goes out together with the first news."""
NEXT_TARGET_S = 0.02
"""Before the next of several controllers is tried."""
DEFAULT_ORPHAN_TIMEOUT_S = 1800.0
"""Before a controller has said otherwise."""
FATAL_CODES = frozenset(
    {
        *("VERSION_MISMATCH", "UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "USAGE"),
        *("JOIN_REFUSED", "JOIN_TOKEN_NEEDED", "CERTIFICATE_REQUEST_INVALID", "FAILED_PRECONDITION", "TLS_OFF"),
    }
)
"""Reasons that make another try of a first registration pointless."""
STALE_CODE = "STALE_INCARNATION"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What the conversation is about: the rest of the agent.

    Attributes:
        observe: all workers.
        store_address: of the collective store, empty while there is none.
        set_desired: takes the whole desired state.
        forget_jobs: removes what is kept of jobs that were deleted, by uid.
    """

    observe: Callable[[], Iterable[WorkerObserved]]
    store_address: Callable[[], str]
    set_desired: Callable[[Sequence[WorkerDesired]], None]
    forget_jobs: Callable[[Sequence[str]], None]


class Conversation:
    """One agent's side, over all its connections. Does no IO and sets no timer: whoever holds the connection does.

    A call goes to ``target``: where ``incarnation`` is 0, ``registration``, and its reply to ``registered``. Then a
    stream: ``begin``, ``next_message`` until there is none, and again after whatever may have changed that; each
    response to ``hear``; at ``beat_at_s`` ``gives_up`` and ``beat``; ``end``. An error that ended the call goes to
    ``judge``; then comes the ``next_pause_s``.

    Args:
        targets: ``host:port`` of each controller; the one that leads answers.
        registration: what the agent says of itself.
        node: the rest of the agent.
        figures: step figures that wait for the controller.
        reports: reports that wait for the controller.
        now_s: a clock that is never put back.
        on_refused: told when the instructions of a former leader were refused.
        chance: of pauses.

    Attributes:
        registration: see above.
        incarnation: which life the controllers know this agent as; 0: none.
        orphan_timeout_s: how long workers train on without a controller.
    """

    def __init__(
        self,
        *,
        targets: Sequence[str],
        registration: agent_pb2.RegisterRequest,
        node: Node,
        figures: FiguresOutbox,
        reports: ReportsOutbox,
        now_s: Callable[[], float],
        on_refused: Callable[[], object] = lambda: None,
        chance: Random | None = None,
    ) -> None:
        self.registration = registration
        self.incarnation = 0
        self.orphan_timeout_s = DEFAULT_ORPHAN_TIMEOUT_S
        self._targets = tuple(targets)
        self._turn = 0
        self._node = node
        self._instructions = Instructions()
        self._figures = figures
        self._reports = reports
        self._now_s = now_s
        self._on_refused = on_refused
        self._backoff = Backoff(chance)
        self._patience = Patience()
        self._connected = False
        self._due = self._coalescing = False
        self._goodbye = ""
        self._sequence = self._desired_version = self._epoch = 0
        self._heartbeat_s = 1.0
        self._heard_at_s = self._answered_s = self._observed_s = now_s()
        self._said: dict[tuple[str, int, int], tuple[WorkerObserved, records_pb2.WorkerObserved]] = {}

    @property
    def target(self) -> str:
        """Which controller is called next, or now."""
        return self._targets[self._turn % len(self._targets)]

    def silent_s(self) -> float:
        """Seconds without a controller, since the last connection or the start; 0 while connected."""
        return 0.0 if self._connected else self._now_s() - self._heard_at_s

    def registered(self, reply: agent_pb2.RegisterResponse) -> None:
        """A life began."""
        self.incarnation = reply.agent_incarnation
        self._epoch = max(self._epoch, reply.epoch)
        self._heartbeat_s = reply.heartbeat_s or self._heartbeat_s
        self.orphan_timeout_s = reply.orphan_timeout_s or self.orphan_timeout_s
        self._heard_at_s = self._now_s()
        _LOG.info("registered as incarnation %d (leader epoch %d)", self.incarnation, self._epoch)

    def begin(self) -> agent_pb2.SessionRequest:
        """A stream was opened; its first message. What was not acknowledged on an earlier one is said again."""
        self._figures.rewind()
        self._reports.rewind()
        self._due = True
        self._answered_s = self._observed_s = self._now_s()
        hello = agent_pb2.AgentHello(node=self.registration.node, agent_incarnation=self.incarnation, epoch=self._epoch)
        return agent_pb2.SessionRequest(hello=hello)

    def next_message(self) -> agent_pb2.SessionRequest | None:
        """The most urgent message that waits, from now on sent; None if there is none."""
        if self._due:
            self._due = False
            return agent_pb2.SessionRequest(observed=self._observation())
        report = self._reports.take(self._sequence + 1)
        if report is not None:
            return _of_report(report)
        batch = self._figures.take()
        if batch is not None:
            return _of_figures(batch)
        if self._goodbye:
            reason, self._goodbye = self._goodbye, ""
            return agent_pb2.SessionRequest(goodbye=agent_pb2.Goodbye(reason=reason))
        return None

    def changed(self) -> bool:
        """There is news. True: ``observe`` shall be called in ``COALESCE_S``; False: it will be already."""
        first, self._coalescing = not self._coalescing, True
        return first

    def observe(self) -> None:
        """The next message is an observation."""
        self._coalescing = False
        self._due = True

    def say_goodbye(self, reason: str) -> None:
        """Once nothing else waits, the controller is told that this agent ends."""
        self._goodbye = reason

    def hear(self, response: agent_pb2.SessionResponse) -> bool:
        """What the controller said; True if it wants something else of the workers from now on: see ``changed``."""
        self._connected = True  # a controller that froze is noticed by the channel's keep-alive
        self._answered_s = self._now_s()
        self._patience.heard()
        kind = response.WhichOneof("message")
        if kind == "ack":
            self._backoff.reset()  # a controller that cannot read what is said here acknowledges nothing
            self._figures.acknowledge(response.ack.figures_sequence)
            self._reports.acknowledge(response.ack.sequence)
        return kind == "desired" and self._takes(response.desired)

    def beat_at_s(self) -> float:
        """When the stream may have been quiet for too long: either side of it."""
        return self._observed_s + self._period_s()

    def gives_up(self) -> bool:
        """Whether to leave the stream, and to ask others.

        Every heartbeat is answered; a leader that does not answer any more may be frozen, and another one lead.
        """
        silent_s = self._now_s() - self._answered_s
        if len(self._targets) == 1 or silent_s < self._limit_s():
            return False
        _LOG.warning("no answer from the controller at %s for %.1f s: asking others", self.target, silent_s)
        return True

    def beat(self) -> bool:
        """Whether an observation is due because nothing else has made the agent observe for a heartbeat.

        Where a thousand agents have news, that is enough.
        """
        now_s = self._now_s()
        if now_s < self._observed_s + self._period_s():
            return False
        self._observed_s, self._due = now_s, True
        return True

    def end(self) -> None:
        """The stream has ended."""
        if self._connected:
            self._connected = False
            self._heard_at_s = self._now_s()

    def judge(self, error: TrainctlError, *, misfits: int = 0) -> bool:
        """What the error that ended a call means: try again, or, if True, end all workers and begin a new life.

        Args:
            error: that ended it.
            misfits: controllers in a row that this agent's certificates, or its having none, keep from answering.

        Raises:
            TrainctlError: the error: the first registration was refused for a reason that will not go away.
        """
        if error.code == STALE_CODE:
            _LOG.error("the controller declared this agent's life over (%s): ending all workers", error)
            self.incarnation = 0
            return True
        if not self.incarnation and (error.code in FATAL_CODES or misfits >= len(self._targets)):
            raise error
        # Workers train on meanwhile; if nobody comes, the orphan time-out ends it.
        hint = f" ({error.hint})" if error.hint and error.code != "UNAVAILABLE" else ""
        _LOG.warning("no controller at %s: %s%s", self.target, error, hint)
        if isinstance(error, UnavailableError):
            self._backoff.wait_at_least(error.retry_after_s)
        return False

    def next_pause_s(self) -> float:
        """Ends the turn of this ``target``; how long to wait before the next one is called."""
        self._turn += 1
        if self._turn % len(self._targets):
            return NEXT_TARGET_S
        self._patience.nobody_answered()
        return self._backoff.next_s()

    def _limit_s(self) -> float:
        return self._patience.limit_s(connected=self._connected, heartbeat_s=self._heartbeat_s)

    def _period_s(self) -> float:
        return min(self._heartbeat_s, self._limit_s())

    def _observation(self) -> agent_pb2.AgentObserved:
        self._sequence += 1
        self._observed_s = self._now_s()
        return agent_pb2.AgentObserved(
            sequence=self._sequence,
            desired_version=self._desired_version,
            store_address=self._node.store_address(),
            workers=self._of_workers(self._instructions.noted(self._node.observe())),
        )

    def _of_workers(self, workers: Sequence[WorkerObserved]) -> list[records_pb2.WorkerObserved]:
        """A message is made anew only where there is news: most workers are as they were at the last heartbeat."""
        former, self._said = self._said, {}
        messages: list[records_pb2.WorkerObserved] = []
        for worker in workers:
            key = (worker.job_uid, worker.slot, worker.incarnation)
            known = former.get(key)
            if known is None or known[0] != worker:
                known = (worker, record_to_message(worker, records_pb2.WorkerObserved))
            self._said[key] = known
            messages.append(known[1])
        return messages

    def _takes(self, desired: agent_pb2.AgentDesired) -> bool:
        if desired.epoch < self._epoch:
            _LOG.warning(
                "refused the instructions of a former leader (epoch %d): the leader of epoch %d was heard already",
                desired.epoch,
                self._epoch,
            )
            self._on_refused()
            return False
        self._epoch = desired.epoch
        self._heartbeat_s = desired.heartbeat_s or self._heartbeat_s
        self._node.set_desired(self._instructions.read(desired.workers))
        self._node.forget_jobs(desired.deleted_jobs)
        self._desired_version = desired.version
        return True


def _of_report(report: Report) -> agent_pb2.SessionRequest:
    if isinstance(report, CheckpointReport):
        return agent_pb2.SessionRequest(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
    return agent_pb2.SessionRequest(recovery=record_to_message(report, records_pb2.RecoveryReport))


def _of_figures(batch: Batch) -> agent_pb2.SessionRequest:
    figures = [record_to_message(item, records_pb2.StepFigures) for item in batch.figures]
    return agent_pb2.SessionRequest(
        figures=agent_pb2.FiguresBatch(job_uid=batch.job_uid, sequence=batch.sequence, figures=figures)
    )
