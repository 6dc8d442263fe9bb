"""What an agent of another version says that is not known here: evidence of nothing, and told once in the log."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence

from trainctl.controller.agents.agent import Agent
from trainctl.core.records.worker import WorkerObserved
from trainctl.protos.version import package_version

_log = logging.getLogger(__name__)
_MOST = 16
"""Told of one agent life: a flood must not fill the log."""


def unknown_words(workers: Sequence[WorkerObserved]) -> Iterator[str]:
    """Field and word of each that is not known here."""
    for worker in workers:
        if not worker.phase.known:
            yield f"workers.phase {worker.phase.value!r}"
        if not worker.progress.phase.known:
            yield f"workers.progress.phase {worker.progress.phase.value!r}"
        moving = worker.progress.transfer
        if moving is not None and not moving.kind.known:
            yield f"workers.progress.transfer.kind {moving.kind.value!r}"
        vote = worker.report.voted if worker.report is not None else None
        if vote is not None and not vote.action.known:
            yield f"workers.report.voted.action {vote.action.value!r}"


def note_unknown(agent: Agent, found: Iterable[str]) -> None:
    """Writes into the log what the agent did not say before."""
    for what in found:
        if what in agent.unknown or len(agent.unknown) >= _MOST:
            continue
        agent.unknown.add(what)
        _log.warning(
            "the agent of %s (trainctl %s) says %s, which trainctl %s does not know: it changes nothing",
            agent.registration.node, agent.registration.version, what, package_version(),
        )  # fmt: skip
