"""``make bench-overhead``: tokens per second of the whole system and of a plain torch DDP loop, in interleaved pairs.

Same model, batch, threads and world size; the first pair is dropped, and the first steps of every run. Prints a table
and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.systems import PEERS, Ours, read_log
from benchmarks.workload import Workload
from trainctl.checkpoint.optimizer_state import OptimizerState
from trainctl.parallel.replica.gradients import FlatGradients

WARM_STEPS = 10


def tokens_per_s(workload: Workload, commits: Sequence[tuple[int, float]]) -> float:
    """Throughput between the end of the warm steps and the last commit."""
    steps = len(commits) - WARM_STEPS
    return workload.tokens_per_step * steps / (commits[-1][1] - commits[WARM_STEPS - 1][1])


def run_ddp(workload: Workload, steps: int) -> float:
    """One run of the plain loop under torchrun."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log = Path(folder) / "steps.log"
        command = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", str(workload.world_size)]
        command += ["--standalone", str(PEERS / "ddp_train.py"), json.dumps(workload.sizes()), str(log), str(steps)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([*command, "unused", "0"], env=environment, check=True, capture_output=True, timeout=600)
        return tokens_per_s(workload, read_log(log))


def run_ours(workload: Workload, steps: int, system: Ours) -> tuple[float, Sequence[Any]]:
    """One job on a system that is already up: throughput and its figures."""
    system.system.submit(system.spec(steps=steps), "--name", (name := f"bench-{os.urandom(3).hex()}"))
    system.system.wait_phase(name, "SUCCEEDED", 600)
    figures = system.system.figures(name)
    return tokens_per_s(workload, [(f.step, f.wall_s) for f in figures]), figures


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
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    workload = Workload()
    corpus = Path(json.__file__).parents[1] / "email"
    ratios, ours_all, ddp_all, votes = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        system = Ours(workload, Path(folder), corpus=corpus)
        system.system.up()
        try:
            for pair in range(options.pairs + 1):
                # In turn first and second, so that a machine that gets slower or faster favours nobody.
                first = run_ddp(workload, options.steps) if pair % 2 else 0.0
                ours, figures = run_ours(workload, options.steps, system)
                ddp = first or run_ddp(workload, options.steps)
                print(
                    f"pair {pair} trainctl {ours:8.0f} tokens/s   ddp {ddp:8.0f} tokens/s   {ours / ddp:.3f}",
                    flush=True,
                )
                if pair > 0:
                    ratios.append(ours / ddp)
                    ours_all.append(ours)
                    ddp_all.append(ddp)
                    votes += [1000 * f.vote_s for f in figures[WARM_STEPS:]]
        finally:
            system.system.down()
    model, _ = workload.build()
    parameter_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
    print(
        json.dumps(
            {
                "throughput_ratio_vs_ddp": round(statistics.median(ratios), 4),
                "throughput_ratio_min": round(min(ratios), 4),
                "throughput_ratio_max": round(max(ratios), 4),
                "tokens_per_s": round(statistics.median(ours_all)),
                "ddp_tokens_per_s": round(statistics.median(ddp_all)),
                "vote_ms": round(statistics.median(votes), 2),
                "retained_bytes_ratio": round(retained_share(workload), 3),
                "parameter_bytes": parameter_bytes,
                "pairs": len(ratios),
                "steps": options.steps,
                "sizes": workload.sizes(),
                "torch": version("torch"),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
