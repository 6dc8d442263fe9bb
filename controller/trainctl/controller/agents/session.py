"""One open stream to an agent: what waits to be sent, the newest of each kind only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from trainctl.core.errors import TrainctlError
from trainctl.protos.v1 import agent_pb2

MAX_LOG_REQUESTS = 1000
ANSWER_EVERY_S = 1.0
ANSWER_EVERY_BEATS = 2
"""An agent that hears nothing for three seconds and four beats looks for another leader."""


class AgentSession:
    """The sending side. Desired state is composed when it is sent, so a slow agent gets the newest, never a backlog.

    Args:
        node: the node's name.
        agent_incarnation: the agent life at the other end.
        write_desired: writes the whole desired state of this agent as of now into an empty message.
        monotonic_s: the clock that silence is measured on.
    """

    def __init__(
        self,
        node: str,
        agent_incarnation: int,
        write_desired: Callable[[agent_pb2.AgentDesired], None],
        monotonic_s: Callable[[], float],
    ) -> None:
        self.node = node
        self.agent_incarnation = agent_incarnation
        self.error: TrainctlError | None = None
        self._write_desired = write_desired
        self._monotonic_s = monotonic_s
        self._answered_s = monotonic_s()
        self._desired_due = True
        self._acked = agent_pb2.Ack()
        self._ack_due = False
        self._owes_reports = True  # the first observation is always acknowledged: it says that the stream works
        self._log_requests: deque[agent_pb2.LogRequest] = deque(maxlen=MAX_LOG_REQUESTS)
        self._closed = False
        self._wake = asyncio.Event()

    def desire(self) -> None:
        """The desired state changed."""
        self._desired_due = True
        self._wake.set()

    def took_report(self) -> None:
        """A report is safe here: the next observation, which came after it, is worth an acknowledgement."""
        self._owes_reports = True

    def took_observation(self, sequence: int, heartbeat_s: float) -> None:
        """Acknowledges the reports before it, and now and then none: so the agent hears that somebody leads."""
        quiet_s = self._monotonic_s() - self._answered_s
        if self._owes_reports or quiet_s >= max(ANSWER_EVERY_S, ANSWER_EVERY_BEATS * heartbeat_s):
            self._owes_reports = False
            self._acked.sequence = sequence
            self._acknowledge()

    def took_figures(self, sequence: int) -> None:
        """Everything up to this batch is safe here."""
        self._acked.figures_sequence = max(self._acked.figures_sequence, sequence)
        self._acknowledge()

    def _acknowledge(self) -> None:
        self._ack_due = True
        self._wake.set()

    def request_logs(self, request: agent_pb2.LogRequest) -> None:
        """Asks the agent for log lines, or to stop sending them."""
        self._log_requests.append(request)
        self._wake.set()

    def close(self, error: TrainctlError | None = None) -> None:
        """Ends the stream, with an error if the agent shall know why."""
        self._closed = True
        self.error = self.error or error
        self._wake.set()

    async def next(self) -> agent_pb2.SessionResponse | None:
        """The most urgent message, as soon as there is one; None when the session is closed."""
        while not self._closed:
            response = self._due()
            if response is not None:
                self._answered_s = self._monotonic_s()
                return response
            self._wake.clear()
            await self._wake.wait()
        return None

    def _due(self) -> agent_pb2.SessionResponse | None:
        if self._desired_due:
            self._desired_due = False
            response = agent_pb2.SessionResponse()
            response.desired.SetInParent()  # also where there is nothing to say
            self._write_desired(response.desired)
            return response
        if self._ack_due:
            self._ack_due = False
            return agent_pb2.SessionResponse(ack=self._acked)
        if self._log_requests:
            return agent_pb2.SessionResponse(log_request=self._log_requests.popleft())
        return None
