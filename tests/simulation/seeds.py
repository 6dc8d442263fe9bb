"""Runs by seed: what a seed means, and what is wrong with a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context

from simulation.history import digest, read
from simulation.invariants import violations
from simulation.nemeses import CONTROL_PLANE_ONLY, durations
from simulation.plan import Plan, draw
from simulation.wishes import HARMLESS, WISHES
from simulation.world import play

CONTROL_PLANE_EVERY = 4
"""In each fourth run only the control plane suffers, so that nothing may happen to any job."""
REPLAY = "PYTHONPATH=tests .venv/bin/python -m simulation --seed {seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of one seed."""

    seed: int
    digest: str
    violations: tuple[str, ...]
    cpu_s: float
    virtual_s: float = 0.0

    def __str__(self) -> str:
        if not self.violations:
            return f"seed {self.seed}: {self.digest}, all invariants hold"
        listed = "\n  ".join(violation[:2000] for violation in self.violations[:12])
        return f"seed {self.seed} breaks:\n  {listed}\nreplay: {REPLAY.format(seed=self.seed)} --shrink"


def plan_of(seed: int) -> Plan:
    """The run that a seed stands for."""
    if seed % CONTROL_PLANE_EVERY == 0:
        plan = draw(seed, durations(CONTROL_PLANE_ONLY), sorted(HARMLESS))
        return plan.with_jobs([replace(job, most=job.least) for job in plan.jobs])  # nobody grows either
    return draw(seed, durations(), sorted(WISHES))


def judge(plan: Plan) -> Verdict:
    """Runs a plan and looks at what it left."""
    began_s = time.process_time()
    log = logging.getLogger("trainctl")
    former = log.level
    log.setLevel(logging.CRITICAL)
    try:
        ran = play(plan)
    except Exception as error:  # what the simulation itself stumbles over is a finding as well
        took_s = time.process_time() - began_s
        return Verdict(seed=plan.seed, digest="", violations=(f"{type(error).__name__}: {error}",), cpu_s=took_s)
    finally:
        log.setLevel(former)
    found = tuple(violations(read(ran)))
    took_s = time.process_time() - began_s
    return Verdict(seed=plan.seed, digest=digest(ran), violations=found, cpu_s=took_s, virtual_s=ran.settled_s)


def judge_seed(seed: int) -> Verdict:
    """Runs one seed."""
    return judge(plan_of(seed))


def judge_all(seeds: Sequence[int], *, processes: int) -> Iterator[Verdict]:
    """Runs many seeds side by side, and gives each verdict as soon as it is there."""
    if processes <= 1:
        yield from map(judge_seed, seeds)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = [pool.submit(judge_seed, seed) for seed in seeds]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for future in waiting:
                future.cancel()
