"""``make bench-recovery``: seconds from a SIGKILL to the first new committed step, here and at the peers.

Each round runs each system in turn with a few kills at random phases of a step; the first kill of a system's life is
dropped (caches are cold). The boundary is the same for everyone: the kill, and the first commit of a new step that
the kill delayed. Prints a table and, last, one JSON line; exits with 1 if a peer could not run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.quantiles import quantile
from benchmarks.systems import Ours, System, Torchft, Torchrun
from benchmarks.workload import Workload

PATIENCE_S = 60.0


@dataclass(slots=True)
class Samples:
    """What one system showed."""

    seconds: list[float] = field(default_factory=list)
    redone_steps: list[int] = field(default_factory=list)
    step_s: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Polls a system from outside, gently: the machine is the benchmark's."""
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"{what}: not within {PATIENCE_S:.0f} s")
        time.sleep(0.05)


def newest(system: System) -> int:
    return max((step for step, _ in system.commits()), default=0)


def ran_on(system: System, start: int) -> bool:
    """Six more steps with all workers."""
    return system.whole() and newest(system) >= start + 6


def recovered(system: Ours, count: int) -> bool:
    """That many recoveries were finished."""
    return len([r for r in system.system.job("bench").status.recoveries if "total" in r.phases_s]) == count


def one_kill(system: System, rank: int, dice: random.Random, samples: Samples, *, keep: bool) -> None:
    """Lets the system run some steps, kills a worker at a random moment, waits for the first new step."""
    start = newest(system)
    wait_for(partial(ran_on, system, start), f"{system.name}: steps before the kill")
    time.sleep(dice.uniform(0.0, 0.5))
    killed_s = system.kill(rank)
    before = max(step for step, wall_s in system.commits() if wall_s <= killed_s)
    wait_for(lambda: system.whole() and newest(system) > before + 3, f"{system.name}: new steps after the kill")
    commits = system.commits()
    usual_s = typical_step_s(commits, killed_s)
    first_s = end_of_interruption(commits, killed_s, usual_s)
    redone = {step for step, wall_s in commits if step <= before and wall_s > killed_s + usual_s}
    if keep:
        samples.seconds.append(first_s - killed_s)
        samples.redone_steps.append(len(redone))
        samples.step_s.append(usual_s)


def first_commits(commits: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Each step once, at the first time that anybody committed it."""
    first: dict[int, float] = {}
    for step, wall_s in commits:
        first.setdefault(step, wall_s)
    return sorted(first.items())


def typical_step_s(commits: Sequence[tuple[int, float]], until_s: float) -> float:
    """Median seconds of the newest steps before ``until_s``."""
    before = [wall_s for _, wall_s in first_commits(commits) if wall_s <= until_s][-6:]
    return statistics.median(b - a for a, b in itertools.pairwise(before))


def end_of_interruption(commits: Sequence[tuple[int, float]], killed_s: float, usual_s: float) -> float:
    """When the first new step was committed that the kill had delayed.

    A step whose votes were already cast may still be committed right after the kill; it shows no recovery. So: the
    first new commit that comes more than two usual steps after the one before it; if there is none, nothing stopped.
    """
    times = [wall_s for _, wall_s in first_commits(commits)]
    last = max(wall_s for wall_s in times if wall_s <= killed_s)
    new = [wall_s for wall_s in times if wall_s > killed_s]
    for earlier, later in itertools.pairwise([last, *new]):
        if later - earlier > 2 * usual_s:
            return later
    return new[0]


def one_round(make: Callable[[Path], System], kills: int, dice: random.Random, samples: Samples) -> None:
    """One life of one system: a kill that is not counted, then ``kills`` that are."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        system = make(Path(folder))
        try:
            system.start()
            wait_for(lambda: newest(system) >= 3, f"{system.name}: the first steps")
            for index in range(kills + 1):
                one_kill(system, dice.randrange(4), dice, samples, keep=index > 0)
        finally:
            system.stop()


def freezes(corpus: Path, workload: Workload, count: int, dice: random.Random) -> tuple[list[float], list[float]]:
    """Seconds to notice a SIGSTOP, and from there to the first new committed step."""
    notice_s, recover_s = [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        system = Ours(workload, Path(folder), corpus=corpus)
        try:
            system.start()
            for index in range(count):
                start = newest(system)
                wait_for(partial(ran_on, system, start), "steps before the freeze")
                time.sleep(dice.uniform(0.0, 0.5))
                system.kill(dice.randrange(4), signal.SIGSTOP)
                wait_for(partial(recovered, system, index + 1), "the recovery from a freeze")
                phases = system.system.job("bench").status.recoveries[-1].phases_s
                notice_s.append(phases["detect"])
                recover_s.append(phases["total"] - phases["detect"])
        finally:
            system.stop()
    return notice_s, recover_s


def shown(values: Sequence[float], share: float) -> float | None:
    return round(quantile(values, share), 3) if values else None


def ratio(peer: float | None, ours: float | None) -> float | None:
    return round(peer / ours, 2) if peer and ours else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=4, help="counted kills a round")
    parser.add_argument("--freezes", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    workload, dice = Workload(), random.Random(options.seed)
    corpus = Path(json.__file__).parents[1] / "email"
    makers: dict[str, Callable[[Path], System]] = {
        "trainctl": lambda folder: Ours(workload, folder, corpus=corpus),
        "torchrun": lambda folder: Torchrun(workload, folder),
        "torchft": lambda folder: Torchft(workload, folder),
    }
    samples = {name: Samples() for name in makers}
    for number in range(options.rounds):
        for name, make in makers.items():
            side, counted = samples[name], len(samples[name].seconds)
            try:
                one_round(make, options.kills, dice, side)
            except Exception as error:  # a system that does not come back is reported; its next life gets a new chance
                side.errors.append(f"round {number + 1}: {type(error).__name__}: {error}")
            seconds = ", ".join(f"{s:.2f}" for s in side.seconds[counted:])
            failed = f"  {side.errors[-1]}" if len(side.seconds) < counted + options.kills else ""
            print(f"round {number + 1} {name:9} {seconds}{failed}", flush=True)
    notice_s, recover_s = freezes(corpus, workload, options.freezes, dice) if options.freezes else ([], [])
    return report(workload, samples, notice_s, recover_s)


def report(workload: Workload, samples: dict[str, Samples], notice_s: list[float], recover_s: list[float]) -> int:
    """Prints the table and the JSON line; the exit code."""
    print(f"\n{'system':9} {'n':>3} {'p50 s':>7} {'p95 s':>7} {'min':>7} {'max':>7} {'redone max':>10} {'step s':>7}")
    for name, side in samples.items():
        if side.seconds:
            cells = (
                statistics.median(side.seconds),
                shown(side.seconds, 0.95),
                min(side.seconds),
                max(side.seconds),
            )
            middle = " ".join(f"{cell:7.2f}" for cell in cells)
            step_s = statistics.median(side.step_s) if side.step_s else 0.0
            print(f"{name:9} {len(side.seconds):3} {middle} {max(side.redone_steps):10} {step_s:7.3f}")
    p50 = {name: shown(side.seconds, 0.5) for name, side in samples.items()}
    print(
        json.dumps(
            {
                "recovery_p50_s": p50["trainctl"],
                "recovery_p95_s": shown(samples["trainctl"].seconds, 0.95),
                "freeze_recovery_p50_s": shown(recover_s, 0.5),
                "freeze_notice_p50_s": shown(notice_s, 0.5),
                "lost_committed_steps_max": max(samples["trainctl"].redone_steps, default=None),
                "torchrun_recovery_p50_s": p50["torchrun"],
                "torchft_recovery_p50_s": p50["torchft"],
                "speedup_vs_torchrun": ratio(p50["torchrun"], p50["trainctl"]),
                "speedup_vs_torchft": ratio(p50["torchft"], p50["trainctl"]),
                "kills": len(samples["trainctl"].seconds),
                "sizes": workload.sizes(),
                "torch": version("torch"),
                "torchft": version("torchft"),
                "errors": {name: side.errors for name, side in samples.items() if side.errors},
            }
        )
    )
    return 1 if any(side.errors or not side.seconds for side in samples.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
