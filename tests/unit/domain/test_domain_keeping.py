"""Removing and pinning single checkpoints, as decisions: what may go, what is refused, what is kept however old.

Without it a checkpoint that somebody pinned, or that a job needs, could go.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.kept_checkpoints import kept_checkpoints
from trainctl.controller.domain.reconcile import (
    CheckpointNeededError,
    observe_checkpoint_removed,
    request_checkpoint_removal,
    request_pin,
    request_rollback,
)
from trainctl.controller.domain.states import JobPhase
from trainctl.core.errors import NotFoundError
from unit.domain.domain_sim import Simulation
from unit.domain.one_job import wait_for
from unit.domain.wishing import ask, start


def with_three() -> Simulation:
    sim = start()
    wait_for(sim, lambda: len(sim.state.checkpoints) == 3)
    return sim


def steps(state: JobState) -> list[int]:
    return [ref.step for ref in state.checkpoints]


def test_what_is_removed_waits_for_its_files_to_go() -> None:
    sim = with_three()
    ref = sim.state.checkpoints[0]
    ask(sim, request_checkpoint_removal(sim.state, sim.now_s, step=ref.step))
    assert ref not in sim.state.checkpoints
    assert sim.state.doomed == (ref,)
    assert JobState.from_wire(sim.state.to_wire()) == sim.state
    ask(sim, observe_checkpoint_removed(sim.state, ref))
    assert not sim.state.doomed
    again = observe_checkpoint_removed(sim.state, ref)
    assert (again.state, again.events) == (sim.state, ())
    with pytest.raises(NotFoundError, match=f"no committed checkpoint of step {ref.step}"):
        request_checkpoint_removal(sim.state, sim.now_s, step=ref.step)
    assert sim.run().phase is JobPhase.SUCCEEDED


def test_what_a_living_job_needs_stays() -> None:
    sim = with_three()
    first, second, newest = sim.state.checkpoints
    for phase in (JobPhase.RUNNING, JobPhase.PAUSED, JobPhase.RECOVERING, JobPhase.CANCELLING):
        with pytest.raises(CheckpointNeededError, match=f"newest of job .*, which is {phase}"):
            request_checkpoint_removal(replace(sim.state, phase=phase), sim.now_s, step=newest.step)
    island = sim.state.sole_island
    assert island.record is not None
    loading = replace(island, entered=False, record=replace(island.record, checkpoint=first))
    loads = replace(sim.state, phase=JobPhase.RECOVERING, islands=(loading,))
    with pytest.raises(CheckpointNeededError, match="is being loaded"):
        request_checkpoint_removal(loads, sim.now_s, step=first.step)
    assert request_checkpoint_removal(loads, sim.now_s, step=second.step).state.doomed == (second,)
    ask(sim, request_rollback(sim.state, sim.now_s, target=second))
    with pytest.raises(CheckpointNeededError, match="newest"):
        request_checkpoint_removal(sim.state, sim.now_s, step=second.step)
    assert sim.run().phase is JobPhase.SUCCEEDED
    last = sim.state.checkpoints[-1]
    assert request_checkpoint_removal(sim.state, sim.now_s, step=last.step).state.doomed == (last,)


def test_a_job_that_has_no_generation_yet_keeps_what_it_lists() -> None:
    state = with_three().state
    queued = replace(state, islands=(replace(state.islands[0], entered=False, record=None),))
    assert kept_checkpoints(queued) == tuple(ref.attempt for ref in state.checkpoints)


def test_the_last_valid_one_goes_only_with_its_job() -> None:
    sim = with_three()
    assert sim.run().phase is JobPhase.SUCCEEDED
    state, first = sim.state, sim.state.checkpoints[0]
    for ref in reversed(state.checkpoints[1:]):
        state = request_checkpoint_removal(state, sim.now_s, step=ref.step).state
    assert state.checkpoints == (first,)
    with pytest.raises(CheckpointNeededError, match=f"step {first.step} is the last valid one of job") as refused:
        request_checkpoint_removal(state, sim.now_s, step=first.step)
    assert f"trainctl delete {state.name}" in refused.value.hint


def test_one_whose_files_are_gone_is_no_other() -> None:
    sim = with_three()
    assert sim.run().phase is JobPhase.SUCCEEDED
    first, *gone = sim.state.checkpoints
    missing = [ref.uri for ref in gone]
    with pytest.raises(CheckpointNeededError, match=f"step {first.step} is the last valid one"):
        request_checkpoint_removal(sim.state, sim.now_s, step=first.step, missing=missing)
    left = request_checkpoint_removal(sim.state, sim.now_s, step=gone[0].step, missing=missing).state
    assert left.doomed == (gone[0],)
    with pytest.raises(CheckpointNeededError):  # the storage may only be away
        request_checkpoint_removal(sim.state, sim.now_s, step=first.step, missing=[first.uri, *missing])


def test_a_pinned_one_is_kept_beside_the_newest() -> None:
    sim = with_three()
    first = sim.state.checkpoints[0].step
    ask(sim, request_pin(sim.state, sim.now_s, step=first, pinned=True))
    again = request_pin(sim.state, sim.now_s, step=first, pinned=True)
    assert (again.state, again.events) == (sim.state, ())
    keep = sim.state.spec.spec.checkpoint.keep.last
    newest = sim.state.checkpoints[-1].step
    wait_for(sim, lambda: min(steps(sim.state)[1:]) > newest)
    assert steps(sim.state)[0] == first
    assert len(sim.state.checkpoints) == keep + 1
    with pytest.raises(CheckpointNeededError, match="is pinned"):
        request_checkpoint_removal(sim.state, sim.now_s, step=first)
    ask(sim, request_pin(sim.state, sim.now_s, step=first, pinned=False))
    at = sim.state.checkpoints[-1].step
    wait_for(sim, lambda: sim.state.checkpoints[-1].step > at)
    assert first not in steps(sim.state)
    assert sim.run().phase is JobPhase.SUCCEEDED
