"""What must hold after any sequence of faults, judged from the events and the states that the API showed."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import pytest

from trainctl.protos.v1 import job_pb2

_COMMIT = re.compile(r": (\d+) workers? to go on after step (\d+) \(lineage (\d+), (\w+)\)")
_PID = re.compile(r"\(process (\d+)\)")
_GONE = ("worker.exited", "worker.lost", "worker.condemned")


def assert_states_only_go_forward(seen: Sequence[job_pb2.Job]) -> None:
    """Generation and lineage never fall, nor does the step within a lineage."""
    states = [j.status for j in seen]
    for before, after in itertools.pairwise(states):
        assert after.lineage >= before.lineage
        assert after.islands[0].generation >= before.islands[0].generation
        assert after.lineage > before.lineage or after.step >= before.step


def assert_events_explain(events: Sequence[job_pb2.Event], seen: Sequence[job_pb2.Job]) -> None:
    """The history has no gap, one chain of phases, and each phase that was ever shown is in the chain."""
    assert [e.revision for e in events] == list(range(1, len(events) + 1))
    assert all(a.time_s <= b.time_s for a, b in itertools.pairwise(events))
    moves = [(e.fields["from"], e.fields["to"]) for e in events if "to" in e.fields]
    assert moves[0][0] == "QUEUED"
    assert all(a[1] == b[0] for a, b in itertools.pairwise(moves)), moves
    chain = ["QUEUED", *(to for _, to in moves)]
    for phase, _ in itertools.groupby(job.status.phase for job in seen):
        assert phase in chain, f"{phase} is not in {chain}"
        chain = chain[chain.index(phase) :]
    assert all(e.message for e in events)


def assert_generations_rise(events: Sequence[job_pb2.Event]) -> None:
    """Each number is prepared once, in order without gaps, and is then committed or given up before the next."""
    story = [(e.type, int(e.fields["generation"])) for e in events if e.type.startswith("generation.")]
    assert [g for kind, g in story if kind == "generation.preparing"] == list(range(1, story[-1][1] + 1))
    assert [g for _, g in story] == sorted(g for _, g in story)
    for what in ("generation.preparing", "generation.committed", "generation.aborted", "generation.entered"):
        numbers = [g for kind, g in story if kind == what]
        assert len(numbers) == len(set(numbers)), f"{what}: {numbers}"


def assert_rolls_back_only_without_holders(events: Sequence[job_pb2.Event]) -> None:
    """A new lineage begins exactly when the state is loaded or built anew, and only if nobody alive held it."""
    slots: dict[str, str] = {}
    gone: set[str] = set()
    holders: set[str] = set()
    lineage = 0
    for event in events:
        slot, incarnation = event.fields.get("slot", ""), event.fields.get("incarnation", "")
        if event.type == "worker.starting":
            slots[slot] = incarnation
        elif event.type in _GONE:
            gone.add(incarnation)
        elif event.type == "generation.committed":
            match = _COMMIT.search(event.message)
            assert match is not None, event.message
            anew = match[4] in ("checkpoint", "start")
            assert (int(match[3]) > lineage) == anew, event.message
            assert not (anew and holders - gone), f"{event.message}: {holders - gone} still hold the state"
            lineage = int(match[3])
        elif event.type == "generation.entered":
            holders = set(slots.values()) - gone


def assert_nobody_else_died(events: Sequence[job_pb2.Event], hit: set[int]) -> None:
    """Every worker that was ready and ended before its time is one that a fault was aimed at: survivors survive."""
    pids = {e.fields["incarnation"]: int(m[1]) for e in events if (m := _PID.search(e.message))}
    for event in events:
        unexpected = event.type in ("worker.lost", "worker.condemned") or event.reason == "Unexpected"
        pid = pids.get(event.fields.get("incarnation", ""), 0) if unexpected else 0
        assert not pid or pid in hit, f"nobody touched pid {pid}: {event.message}"


def smallest_world(events: Sequence[job_pb2.Event]) -> int:
    """Fewest workers of any committed generation."""
    return min(int(m[1]) for e in events if e.type == "generation.committed" and (m := _COMMIT.search(e.message)))


def assert_time_adds_up(job: job_pb2.Job) -> None:
    """Every second is in exactly one bucket, and each recovery's parts add up to its total."""
    status = job.status
    assert sum(status.goodput_s.values()) == pytest.approx(status.wall_s, abs=1e-3)
    assert all(seconds >= 0 for seconds in status.goodput_s.values())
    for recovery in status.recoveries:
        parts = sum(s for name, s in recovery.phases_s.items() if name != "total")
        assert parts == pytest.approx(recovery.phases_s["total"] if recovery.phases_s else 0.0, abs=1e-3)
