"""Random faults at random times: whatever happens, the job ends as if nothing had, and leaves nothing behind.

Without it losses that come at a bad moment would be tried by users first.

``TRAINCTL_CHAOS_SEEDS=7,12 make chaos`` runs exactly those; ``TRAINCTL_CHAOS_S`` is how long it runs without seeds.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.chaos import Chaos, Fault, script_of
from e2e.invariants import (
    assert_events_explain,
    assert_generations_rise,
    assert_nobody_else_died,
    assert_rolls_back_only_without_holders,
    assert_states_only_go_forward,
    assert_time_adds_up,
    smallest_world,
)
from e2e.ledger import assert_exact_ledger, assert_same_samples, tensors_of
from e2e.local_system import LocalSystem, tiny_job
from e2e.process_tree import processes_of
from trainctl.core.system.memory_folder import memory_folder

pytestmark = pytest.mark.e2e
STEPS, SEQUENCES, WORLD = 200, 24, 4
LIVENESS_S = 90
RSS_GROWTH_BYTES = 64 << 20
FAULTS, DENSE_FAULTS = 6, 10
SMOKE_SEED, SMOKE_FAULTS = 5, 3


@dataclass
class Reference:
    """The undisturbed run of the same job."""

    figures: Sequence[Any]
    state: dict[str, bytes]


def job_file(corpus: Path, *, replacement_wait: str) -> str:
    """The job; its restart budget is not what is tested here."""
    text = tiny_job("chaos", corpus, steps=STEPS, min_nodes=1, interval_steps=40, replacement_wait=replacement_wait)
    job = yaml.safe_load(text)
    job["spec"]["train"]["batch"]["microBatches"] = 12  # steps that take long enough for all faults to fall into
    job["spec"]["train"]["optimizer"]["lr"] = 5e-4  # calm: rounding must not grow to what the test calls a difference
    job["spec"]["recovery"]["maxRestarts"] = {"process": 1000}
    return yaml.safe_dump(job, sort_keys=False)


def final_state(system: LocalSystem) -> dict[str, bytes]:
    checkpoint = system.job("chaos").status.checkpoint
    assert checkpoint.step == STEPS
    return tensors_of(Path(checkpoint.uri))


@pytest.fixture(scope="module")
def reference(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    system = LocalSystem(tmp_path_factory.mktemp("calm") / "local")
    system.up()
    try:
        system.submit(job_file(corpus, replacement_wait="20s"))
        system.wait_phase("chaos", "SUCCEEDED", 120)
        return Reference(system.figures("chaos"), final_state(system))
    finally:
        system.down()


def shared_memory_of(system: LocalSystem) -> set[str]:
    """All that is there, but for folders that other tests have at the same time."""
    own = {memory_folder(node).name for node in system.run_dir.glob("nodes/*")}
    others = ("trainctl-", "pytest-", "simulation-", "sem.mp-")
    return {name for name in os.listdir("/dev/shm") if name in own or not name.startswith(others)}


def run_chaos(script: Sequence[Fault], seed: int, home: Path, corpus: Path, reference: Reference) -> Chaos:
    """One system, one job, one script; then every invariant. Returns what was done."""
    system = LocalSystem(home / "local")
    shared_memory = shared_memory_of(system)
    chaos = Chaos(system, "chaos", script)
    try:
        system.up()
        # A third of the seeds go on without what was lost; the others have time for the replacement.
        system.submit(job_file(corpus, replacement_wait="100ms" if seed % 3 == 0 else "20s"))
        system.wait_step("chaos", 1, 60)
        memory = _service_memory(system)
        job = chaos.run(LIVENESS_S)
        _check_run(system, chaos, job, reference)
        _check_memory(system, memory)
    except BaseException as error:
        story = "\n".join([*map(str, chaos.script), "", *chaos.done])
        diagnosis = system.diagnosis("chaos") if isinstance(error, Exception) else ""
        error.add_note(f"chaos seed {seed}, the script and what became of it:\n{story}\n{diagnosis}")
        raise
    finally:
        system.down()
    assert processes_of(system.run_dir) == []
    assert shared_memory_of(system) <= shared_memory
    assert [p for p in system.run_dir.glob("nodes/*/pages/*") if p.is_file()] == []
    return chaos


def _check_run(system: LocalSystem, chaos: Chaos, job: Any, reference: Reference) -> None:
    events = system.events("chaos")
    assert job.status.phase == "SUCCEEDED", job.status.message
    figures = system.figures("chaos")
    assert_exact_ledger(figures, steps=STEPS, sequences=SEQUENCES)
    assert_same_samples(figures, reference.figures)
    assert_states_only_go_forward(chaos.seen)
    assert_events_explain(events, chaos.seen)
    assert_generations_rise(events)
    assert_rolls_back_only_without_holders(events)
    assert_nobody_else_died(events, chaos.hit)
    assert_time_adds_up(system.job("chaos"))
    if smallest_world(events) == WORLD:
        assert [f.loss for f in figures] == [f.loss for f in reference.figures]
        assert final_state(system) == reference.state
    else:
        assert [f.loss for f in figures] == pytest.approx([f.loss for f in reference.figures], rel=1e-3)


def _service_memory(system: LocalSystem) -> dict[int, int]:
    services = ("trainctl.controller ", "trainctl.agent ")
    return {p.pid: p.rss_bytes for p in processes_of(system.run_dir) if any(s in p.command for s in services)}


def _check_memory(system: LocalSystem, before: dict[int, int]) -> None:
    for pid, rss_bytes in _service_memory(system).items():
        grown_bytes = rss_bytes - before.get(pid, rss_bytes)
        assert grown_bytes < RSS_GROWTH_BYTES, f"pid {pid} grew by {grown_bytes >> 20} MiB"


def seeds() -> Iterator[int]:
    """Those asked for, else new ones until the time is over."""
    given = os.environ.get("TRAINCTL_CHAOS_SEEDS", "")
    if given:
        yield from map(int, given.split(","))
        return
    end_s = time.monotonic() + float(os.environ.get("TRAINCTL_CHAOS_S", "270"))
    for seed in itertools.count(1):
        if time.monotonic() > end_s:
            return
        yield seed


def test_short_chaos_with_a_fixed_seed(reference: Reference, corpus: Path, tmp_path: Path) -> None:
    run_chaos(script_of(SMOKE_SEED, SMOKE_FAULTS), SMOKE_SEED, tmp_path, corpus, reference)


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_random_faults_at_random_times(reference: Reference, corpus: Path, tmp_path: Path) -> None:
    ran = 0
    for seed in seeds():
        home = tmp_path / f"seed-{seed}"
        home.mkdir()
        started_s = time.monotonic()
        dense = seed % 2 == 0
        script = script_of(seed, DENSE_FAULTS if dense else FAULTS, dense=dense)
        chaos = run_chaos(script, seed, home, corpus, reference)
        ran += 1
        took_s = time.monotonic() - started_s
        print(f"seed {seed} held in {took_s:.0f} s:", *chaos.done, sep="\n  ", flush=True)
        shutil.rmtree(home)
    assert ran > 0
