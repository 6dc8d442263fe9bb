"""``make profile``: where the time of a step, a recovery, a save and a start goes; what is ours, function by function.

A step and a save run here, in one process, under Python's profiler, which makes our own code look slower than it is:
the shares count. A recovery is a whole system's, by its own phases. A start is what Python says of its imports.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch

from benchmarks.recovery import newest, ran_on, recovered, wait_for
from benchmarks.systems import Ours
from benchmarks.workload import Workload
from trainctl.checkpoint.engine import Attempt, CheckpointWriter, assign, attempt_id
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.layout.layout import rank_holder, replicated
from trainctl.checkpoint.live.state import state_of
from trainctl.checkpoint.save.saving import live_data
from trainctl.core.records.train_spec import BatchSpec
from trainctl.core.system.faults import FaultPlan
from trainctl.parallel.session import Session

OURS = "/trainctl/"
SHOWN = 8
STARTS: Mapping[str, str] = {
    "trainctl --help": "trainctl.cli.main",
    "the controller": "trainctl.controller.main",
    "an agent": "trainctl.agent.main",
    "a worker": "trainctl.parallel.session",
}


def show(what: str, profile: cProfile.Profile, *, times: int) -> None:
    """How much of it is ours, and of that the functions that take most, without what they call."""
    own: dict[str, float] = defaultdict(float)
    total_s = 0.0
    found: Mapping[tuple[str, int, str], tuple[int, int, float, float, object]] = vars(pstats.Stats(profile))["stats"]
    for (path, _, name), (_, _, self_s, _, _) in found.items():
        total_s += self_s
        if OURS in path:
            own[f"{path.rpartition(OURS)[2]}::{name}"] += self_s
    ours_s = sum(own.values())
    print(f"\n{what}: {1000 * total_s / times:.1f} ms, of which our own code {100 * ours_s / total_s:.1f} %")
    for name, self_s in sorted(own.items(), key=lambda one: -one[1])[:SHOWN]:
        print(f"  {1000 * self_s / times:8.2f} ms  {100 * self_s / total_s:4.1f} %  {name}")


def profiled(do: Callable[[int], None], times: range) -> cProfile.Profile:
    """Calls under the profiler."""
    profile = cProfile.Profile()
    profile.enable()
    for number in times:
        do(number)
    profile.disable()
    return profile


def steps(count: int) -> None:
    """Steps of the benchmark's model in a session that is alone."""
    workload = Workload()
    model, optimizer = workload.build()
    session = Session.open()
    session.register(model=model, optimizer=optimizer)
    batch = BatchSpec(sequences=workload.sequences, micro_batches=workload.micro_batches)
    session.set_data(num_samples=10_000, steps=count + 10, batch=batch, seed=0)
    rows = workload.sequences // workload.micro_batches
    tokens = torch.randint(0, 256, (rows, workload.context + 1))

    def one(number: int) -> None:
        del number
        with session.step() as step:
            for _ in step.micro_batches():
                logits = model(tokens[:, :-1])
                loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")
                step.backward(loss, rows * workload.context)

    for number in range(10):
        one(number)
    show("a step", profiled(one, range(count)), times=count)


def saves(count: int, mib: int) -> None:
    """Saves of a state with two moments, all of it written by this rank."""
    width = max(64, int((mib * 2**20 / 12 / 8) ** 0.5))
    model = torch.nn.Sequential(*(torch.nn.Linear(width, width) for _ in range(8)))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, width)).sum().backward()
    optimizer.step()
    state = state_of(
        model, [optimizer], modules={}, instance="island-0", version=StateVersion(1, 1), objects={}, artifacts={}
    )
    data = live_data(state, assign(replicated(state.shapes(), [rank_holder(0)]))[rank_holder(0)])
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:

        def one(step: int) -> None:
            writer = CheckpointWriter(folder, faults=FaultPlan())
            attempt = Attempt(job="j", step=step, lineage=1, epoch=1, attempt=attempt_id("j", 1, step, "n", 1))
            report = writer.write_part(attempt, writer=0, data=data, shapes=state.shapes())
            writer.seal(attempt, state=state, parts=[report], parent=None)

        one(1)
        profile = profiled(one, range(2, count + 2))
    size = state.full_bytes() / 2**20
    show(f"a save of {size:.0f} MiB (writing happens on threads, and is waited for)", profile, times=count)


def recoveries(count: int) -> None:
    """Workers of a whole system are killed; medians of what the controller says of each phase."""
    phases: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        system = Ours(Workload(), Path(folder), corpus=Path(json.__file__).parents[1] / "email")
        try:
            system.start()
            for number in range(count + 1):
                start = newest(system)
                wait_for(lambda: ran_on(system, start), "steps before the kill")  # noqa: B023 - called at once
                system.kill(number % 4)
                wait_for(lambda: recovered(system, number + 1), "the recovery")  # noqa: B023
                for phase, seconds in system.system.job("bench").status.recoveries[-1].phases_s.items():
                    phases[phase].append(seconds)
        finally:
            system.stop()
    medians = {phase: statistics.median(seconds[1:]) for phase, seconds in phases.items()}
    total_s = medians.pop("total")
    print(f"\na recovery: {1000 * total_s:.0f} ms (medians of {count}; the total is a median, too)")
    for phase, seconds in medians.items():
        print(f"  {1000 * seconds:8.0f} ms  {100 * seconds / total_s:4.0f} %  {phase}")


def starts() -> None:
    """Imports by the package that asks for most, each with what it brings along."""
    for what, module in STARTS.items():
        command = [sys.executable, "-X", "importtime", "-c", f"import {module}"]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        lines = re.findall(r"^import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)$", said, re.MULTILINE)
        packages: Counter[str] = Counter()
        for self_us, _, _, name in lines:
            packages[name.partition(".")[0]] += int(self_us)
        shown = ", ".join(f"{name} {us / 1000:.0f}" for name, us in packages.most_common(6))
        print(f"\nimports of {what}: {packages.total() / 1000:.0f} ms, by package: {shown}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--mib", type=int, default=256, help="size of the state that is saved")
    parser.add_argument("--recoveries", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(2)
    steps(options.steps)
    saves(options.saves, options.mib)
    starts()
    if options.recoveries:
        recoveries(options.recoveries)


if __name__ == "__main__":
    main()
