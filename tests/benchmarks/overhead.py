"""``make bench-overhead``: tokens per second of the whole system and of a plain torch DDP loop, in interleaved pairs.

Same model, batch, threads and world size; the first pair is dropped, and the first steps of every run. Prints a table
and, last, one JSON line; exits with 1 if a side could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.systems import PEERS, Ours, read_log
from benchmarks.workload import Workload
from trainctl.checkpoint.optimizer_state import OptimizerState
from trainctl.parallel.replica.gradients import FlatGradients

T = TypeVar("T")
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


@dataclass(slots=True)
class Samples:
    """What both sides showed, by pair where both did."""

    pairs: list[tuple[float, float]] = field(default_factory=list)
    votes_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def attempt(self, what: str, side: Callable[[], T]) -> T | None:
        """What ``side`` measured; None where it could not run, and then why is kept."""
        try:
            return side()
        except Exception as error:  # a side that is broken is reported; its next turn gets a new chance
            words = getattr(error, "stderr", None) or str(error)
            text = words.decode(errors="replace") if isinstance(words, bytes) else words
            self.errors.append(f"{what}: {type(error).__name__}: {text.strip()[-500:]}")
            return None


def one_pair(workload: Workload, steps: int, system: Ours, samples: Samples, number: int) -> None:
    """Both sides once, in turn first and second, so that a machine that gets slower or faster favours nobody."""

    def theirs() -> float | None:
        return samples.attempt(f"pair {number} ddp", lambda: run_ddp(workload, steps))

    first = theirs() if number % 2 else None
    found = samples.attempt(f"pair {number} trainctl", lambda: run_ours(workload, steps, system))
    ddp = first if number % 2 else theirs()
    if found is None or ddp is None:
        print(samples.errors[-1], flush=True)
        return
    ours, figures = found
    print(f"pair {number} trainctl {ours:8.0f} tokens/s   ddp {ddp:8.0f} tokens/s   {ours / ddp:.3f}", flush=True)
    if number > 0:
        samples.pairs.append((ours, ddp))
        samples.votes_ms += [1000 * f.vote_s for f in figures[WARM_STEPS:]]


def report(workload: Workload, samples: Samples, steps: int) -> int:
    """Prints the JSON line, null where nothing was measured; the exit code."""
    ratios = [ours / ddp for ours, ddp in samples.pairs]
    model, _ = workload.build()
    print(
        json.dumps(
            {
                "throughput_ratio_vs_ddp": median(ratios, 4),
                "throughput_ratio_min": round(min(ratios), 4) if ratios else None,
                "throughput_ratio_max": round(max(ratios), 4) if ratios else None,
                "tokens_per_s": median([ours for ours, _ in samples.pairs], 0),
                "ddp_tokens_per_s": median([ddp for _, ddp in samples.pairs], 0),
                "vote_ms": median(samples.votes_ms, 2),
                "retained_bytes_ratio": round(retained_share(workload), 3),
                "parameter_bytes": sum(p.numel() * p.element_size() for p in model.parameters()),
                "pairs": len(samples.pairs),
                "steps": steps,
                "sizes": workload.sizes(),
                "torch": version("torch"),
                "errors": samples.errors,
            }
        )
    )
    return 1 if samples.errors or not samples.pairs else 0


def median(values: Sequence[float], digits: int) -> float | None:
    """Rounded; None of nothing."""
    return round(statistics.median(values), digits or None) if values else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    workload, samples = Workload(), Samples()
    corpus = Path(json.__file__).parents[1] / "email"
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        system = Ours(workload, Path(folder), corpus=corpus)
        try:
            samples.attempt("trainctl local up", system.system.up)
            for number in range(options.pairs + 1):
                one_pair(workload, options.steps, system, samples, number)
        finally:
            samples.attempt("trainctl local down", system.system.down)
    return report(workload, samples, options.steps)


if __name__ == "__main__":
    sys.exit(main())
