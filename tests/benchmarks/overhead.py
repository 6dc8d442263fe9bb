"""``make bench-overhead``: tokens per second of the whole system and of a plain torch DDP loop, in turns of seconds.

Same model, batch, threads and world size. Both run all the time, but only one of them at a time; every turn is compared
with the one next to it. Prints a table and, last, one JSON line; exits with 1 if a side could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.systems import ENDLESS, PEERS, Ours, read_log
from benchmarks.turns import Turn, signal_tree, take_turns
from benchmarks.workload import Workload
from trainctl.checkpoint.live.optimizer_state import OptimizerState
from trainctl.parallel.replica.gradients import FlatGradients

OURS, DDP = "trainctl", "ddp"
JOB = "bench"
WARM_STEPS = 10
START_S = 120.0


@contextmanager
def plain_ddp(workload: Workload, folder: Path) -> Iterator[tuple[int, Path]]:
    """The plain loop under torchrun, at work: its process, and the log of its steps."""
    log, output = folder / "steps.log", folder / "output.log"
    command = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", str(workload.world_size)]
    command += ["--standalone", str(PEERS / "ddp_train.py"), json.dumps(workload.sizes()), str(log), str(ENDLESS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with output.open("wb") as errors:
        process = subprocess.Popen([*command, "unused", "0"], env=environment, stdout=errors, stderr=errors)
    try:
        deadline_s = time.monotonic() + START_S
        while len(read_log(log)) < WARM_STEPS:
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"the DDP loop does not train: {output.read_text()[-500:]}")
            time.sleep(0.2)
        yield process.pid, log
    finally:
        signal_tree(process.pid, signal.SIGKILL)
        process.wait()


@contextmanager
def our_system(workload: Workload, folder: Path) -> Iterator[tuple[int, Ours]]:
    """The same under ``trainctl local up``: the controller's process, which started all others, and the system."""
    ours = Ours(workload, folder, corpus=Path(json.__file__).parents[1] / "email")
    ours.system.up()
    try:
        # Being stopped for some seconds must not look like a freeze.
        ours.system.submit(ours.spec(steps=ENDLESS, profile="patient"), "--name", JOB)
        ours.system.wait_step(JOB, WARM_STEPS, START_S)
        yield int(ours.system.controller["pid"]), ours
    finally:
        ours.system.down()


def report(workload: Workload, turns: Sequence[Turn], figures: Sequence[Any], log: Path, seconds: float) -> int:
    """Prints the table and the JSON line; the exit code."""
    commits = {OURS: [(f.step, f.wall_s) for f in figures], DDP: read_log(log)}
    rates = [(turn.side, workload.tokens_per_step * turn.steps_per_s(commits[turn.side])) for turn in turns]
    pairs = [dict(rates[at : at + 2]) for at in range(0, len(rates), 2)][1:]  # the first pair warms up
    for number, pair in enumerate(pairs, 1):
        print(f"pair {number:2} trainctl {pair[OURS]:6.0f} ddp {pair[DDP]:6.0f} tokens/s  {pair[OURS] / pair[DDP]:.3f}")
    costs = [(turn.side, turn.cpu_per_step_s(commits[turn.side])) for turn in turns[2:]]
    cost = {side: statistics.median(value for name, value in costs if name == side) for side in (OURS, DDP)}
    ratios = sorted(pair[OURS] / pair[DDP] for pair in pairs)
    quarters = statistics.quantiles(ratios, n=4)
    model, _ = workload.build()
    print(
        json.dumps(
            {
                "throughput_ratio_vs_ddp": round(statistics.median(ratios), 4),
                "throughput_ratio_quartiles": [round(quarters[0], 4), round(quarters[2], 4)],
                "throughput_ratio_min": round(ratios[0], 4),
                "throughput_ratio_max": round(ratios[-1], 4),
                "tokens_per_s": round(statistics.median(pair[OURS] for pair in pairs)),
                "ddp_tokens_per_s": round(statistics.median(pair[DDP] for pair in pairs)),
                "cpu_per_step_s": round(cost[OURS], 3),
                "ddp_cpu_per_step_s": round(cost[DDP], 3),
                "vote_ms": round(1000 * statistics.median(f.vote_s for f in figures[WARM_STEPS:]), 2),
                "retained_bytes_ratio": round(retained_share(workload), 3),
                "parameter_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
                "pairs": len(pairs),
                "turn_s": seconds,
                "recoveries": len({f.generation for f in figures}) - 1,
                "load": round(os.getloadavg()[0], 1),
                "sizes": workload.sizes(),
                "torch": version("torch"),
            }
        )
    )
    return 0


def retained_share(workload: Workload) -> float:
    """Bytes of the retained gradients over the whole state of a worker.

    The state: parameters, optimizer state, gradients. The retained gradients are the only ones, reduced in place; plain
    DDP keeps its buckets beside them, which are as large again.
    """
    model, optimizer = workload.build()
    gradients = FlatGradients(optimizer.param_groups)
    OptimizerState(optimizer)
    retained = sum(buffer.tensor.nbytes for buffer in gradients.buffers)
    moments = sum(tensor.nbytes for state in optimizer.state.values() for tensor in state.values())
    total = sum(p.nbytes for p in model.parameters()) + moments + retained
    return float(retained / total)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=20, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=6.0, help="of a turn")
    options = parser.parse_args()
    workload = Workload()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        ddp, log = stack.enter_context(plain_ddp(workload, folder))
        ours, system = stack.enter_context(our_system(workload, folder))
        roots = {OURS: ours, DDP: ddp}
        turns = list(take_turns(roots, turns=options.pairs + 1, seconds=options.seconds))
        signal_tree(ddp, signal.SIGKILL)  # the figures of ours are asked for in peace
        return report(workload, turns, system.system.figures(JOB), log, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
