"""What an agent says of itself may show that the store is an older copy than what the agent has seen. Pure."""

from __future__ import annotations

from trainctl.controller.agents.agent import Agent

ACCEPTED_JUMP = 1000
"""Of the epoch, where somebody accepted a store as it is: whatever agents saw before is over then."""


def doubt_of(known: Agent | None, *, node: str, incarnation: int, epoch: int, own_epoch: int) -> str:
    """Why the store is older than what an agent has seen; empty if nothing says so.

    Args:
        known: the newest life of this node that is known here.
        node: whose agent it is.
        incarnation: which life the agent says it is.
        epoch: of the newest leader that it obeyed.
        own_epoch: of this leader.
    """
    newest = known.incarnation if known is not None else 0
    if epoch > own_epoch:
        seen = f"has obeyed a leader of epoch {epoch}, this controller has {own_epoch}"
    elif epoch == own_epoch and incarnation == newest and known is not None and not known.told:
        seen = f"has obeyed another leader of this controller's epoch, {epoch}"
    elif incarnation > newest and own_epoch - epoch < ACCEPTED_JUMP:
        seen = f"was registered as incarnation {incarnation}, which this controller's store has no record of"
    else:
        return ""
    return f"agent of {node} {seen}: the state store is older than what the agent has seen"
