"""Conversations of an agent, as tests begin them."""

from __future__ import annotations

from collections.abc import Callable

from trainctl.agent.conversation import Conversation, Node
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.core.clock import ManualClock
from trainctl.protos.v1 import agent_pb2

IDLE = Node(observe=lambda: (), store_address=lambda: "", set_desired=lambda _: None, forget_jobs=lambda _: None)


def conversation(
    *targets: str,
    clock: ManualClock | None = None,
    node: Node = IDLE,
    figures: FiguresOutbox | None = None,
    reports: ReportsOutbox | None = None,
    on_refused: Callable[[], object] = lambda: None,
) -> Conversation:
    """One that has not begun, of an agent without workers unless ``node`` has some."""
    return Conversation(
        targets=targets or ("c0:1",), registration=agent_pb2.RegisterRequest(node="n"), node=node,
        figures=FiguresOutbox() if figures is None else figures,
        reports=ReportsOutbox() if reports is None else reports,
        now_s=(clock or ManualClock()).monotonic_s, on_refused=on_refused,
    )  # fmt: skip
