"""``make bench-checkpoint-gpu``: a snapshot of a model's whole state after every step, on a CUDA device.

A Llama decoder of about a billion parameters with AdamW (fp32 state, bf16 arithmetic) trains on random tokens. In
turns: no snapshots; trainctl's, each copied beside the next forward and backward pass; torch's asynchronous saves, in
a thread and in a process, with a stager that is used again. Nothing is written anywhere, on all sides. The *stall* of
a step is what beginning the copy takes, and the wait before the next update, of the host and of the device's queue.
The first turn of each is dropped; in it trainctl's copies are compared with the state, bit by bit. The limit is a
plain copy into pinned memory. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch
import torch.distributed as dist
from torch.nn import functional

from benchmarks.checkpoint_gpu_sides import (
    IDLE,
    OURS,
    PROCESS,
    SIDES,
    THREAD,
    Ours,
    Side,
    side_of,
    to_host_bytes_per_s,
    wait_for,
)
from trainctl.checkpoint.layout.key import StateVersion
from trainctl.checkpoint.live.state import state_of
from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.models.llama import Llama

TARGETS = {"gpu_stall_share": 0.02}
VOCABULARY = 32_000
LIMIT_BYTES = 1 << 30


class Training:
    """Steps of one model on one device.

    Args:
        device: which one.
        model: its shape.
        tokens: in a step.
        rows: of ``model.context`` tokens that are computed at once.
    """

    def __init__(self, device: torch.device, model: ModelSpec, *, tokens: int, rows: int) -> None:
        self._device = device
        self._model = Llama(model, VOCABULARY).to(device)
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=1e-5, fused=True)
        self._batches = torch.randint(VOCABULARY, (max(1, tokens // (rows * model.context)), rows, model.context))
        self._batches = self._batches.to(device)
        self.parameters = sum(parameter.numel() for parameter in self._model.parameters())
        self.forward_and_backward()
        self.update()
        self.state = state_of(self._model, [self._optimizer], instance="island-0", version=StateVersion(1, 1))

    def forward_and_backward(self) -> None:
        for ids_BT in self._batches:
            with torch.autocast(self._device.type, torch.bfloat16):
                logits_BTV = self._model(ids_BT)
                loss = functional.cross_entropy(logits_BTV.flatten(0, 1).float(), ids_BT.flatten())
            torch.autograd.backward(loss / len(self._batches))

    def update(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad()

    def steps(self, side: Side, count: int) -> tuple[float, float]:
        """Seconds of a step and of the stall in it, means of so many."""
        stall_s = 0.0
        wait_for(self._device)
        began_s = time.perf_counter()
        for _ in range(count):
            at_s = time.perf_counter()
            side.begin()
            stall_s += time.perf_counter() - at_s
            self.forward_and_backward()
            wait_for(self._device)
            at_s = time.perf_counter()
            side.fence()
            wait_for(self._device)  # which has been told to wait for the copy
            stall_s += time.perf_counter() - at_s
            self.update()
            wait_for(self._device)
        return (time.perf_counter() - began_s) / count, stall_s / count


@dataclass
class Samples:
    """Seconds by side, one of each turn."""

    step_s: dict[str, list[float]] = field(default_factory=dict)
    stall_s: dict[str, list[float]] = field(default_factory=dict)

    def take(self, side: str, step_s: float, stall_s: float) -> None:
        self.step_s.setdefault(side, []).append(step_s)
        self.stall_s.setdefault(side, []).append(stall_s)

    def shares(self, side: str) -> list[float]:
        """Of the stall in a step without copies, turn by turn."""
        return [stall / step for stall, step in zip(self.stall_s[side], self.step_s[IDLE], strict=True)]

    def slowdowns(self, side: str) -> list[float]:
        """Of a whole step to one without copies, turn by turn."""
        return [step / idle for step, idle in zip(self.step_s[side], self.step_s[IDLE], strict=True)]

    def show(self) -> None:
        """Prints the table."""
        print(f"\n{'':14}{'step':>12}{'stall':>12}{'share':>12}{'slowdown':>12}")
        for side, steps in self.step_s.items():
            cells = [
                statistics.median(of) for of in (steps, self.stall_s[side], self.shares(side), self.slowdowns(side))
            ]
            print(f"{side:14}" + "".join(f"{cell:12.4f}" for cell in cells), flush=True)


def measure(training: Training, names: Sequence[str], *, pairs: int, steps: int) -> tuple[Samples, Ours]:
    """All sides in turns; who begins changes."""
    samples = Samples()
    sides = {name: side_of(name, training.state) for name in (IDLE, *names)}
    ours = sides[OURS]
    assert isinstance(ours, Ours)
    for number in range(pairs + 1):
        ours.checks = number == 0
        for name in sides if number % 2 else tuple(reversed(sides)):
            step_s, stall_s = training.steps(sides[name], steps)
            sides[name].end()
            if number:
                samples.take(name, step_s, stall_s)
        if not number:
            ours.copies_s.clear()
    return samples, ours


def figures(samples: Samples, names: Sequence[str]) -> dict[str, list[float]]:
    """Each with its values, one a turn."""
    found = {"gpu_stall_share": samples.shares(OURS), "gpu_step_slowdown": samples.slowdowns(OURS)}
    for name, word in ((THREAD, "dcp_thread"), (PROCESS, "dcp_process")):
        if name in names:
            found[f"{word}_stall_share"] = samples.shares(name)
            found[f"{word}_step_slowdown"] = samples.slowdowns(name)
            ratios = zip(samples.stall_s[OURS], samples.stall_s[name], strict=True)
            found[f"gpu_stall_vs_{word}"] = [ours / theirs for ours, theirs in ratios]
    return found


def device_of(text: str) -> torch.device:
    """The device to measure; ends the program where it is not there."""
    device = torch.device(text)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            f"error: expected a CUDA device, found none (torch {torch.__version__}): the figures are of a device; "
            "--device cpu --layers 1 --hidden 64 only tries out the program",
            file=sys.stderr,
        )
        sys.exit(2)
    return device


def name_of(device: torch.device) -> str:
    """Of the hardware."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def parsed() -> tuple[argparse.Namespace, list[str]]:
    """The options, and the sides that are measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--context", type=int, default=2048, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=2, help="computed at once")
    parser.add_argument("--tokens", type=int, default=32_768, help="in a step")
    parser.add_argument("--steps", type=int, default=10, help="in a turn")
    parser.add_argument("--pairs", type=int, default=5, help="turns that count")
    parser.add_argument("--sides", default=",".join(SIDES), help=f"of {', '.join(SIDES)}; the first, too")
    options = parser.parse_args()
    names = options.sides.split(",")
    if unknown := [name for name in names if name not in SIDES]:
        parser.error(f"--sides: expected some of {', '.join(SIDES)}, found {', '.join(unknown)}")
    if OURS not in names:
        parser.error(f"--sides: expected {OURS} and others, found {options.sides}")
    return options, names


def main() -> int:
    options, names = parsed()
    device = device_of(options.device)
    heads = max(1, options.hidden // 64)
    model = ModelSpec(
        layers=options.layers, hidden=options.hidden, heads=heads, ffn=4 * options.hidden, context=options.context
    )
    training = Training(device, model, tokens=options.tokens, rows=options.rows)
    state_bytes = training.state.full_bytes()
    print(
        f"torch {torch.__version__}, {name_of(device)}, {training.parameters:,} parameters, state {state_bytes:,} bytes"
    )
    with tempfile.TemporaryDirectory(prefix="bench-checkpoint-gpu-") as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=0, world_size=1)
        try:
            samples, ours = measure(training, names, pairs=options.pairs, steps=options.steps)
        finally:
            dist.destroy_process_group()
    samples.show()
    found = figures(samples, names)
    limit_bytes_per_s = to_host_bytes_per_s(device, min(LIMIT_BYTES, state_bytes))
    medians = {name: round(statistics.median(values), 4) for name, values in found.items()}
    missed = [name for name, target in TARGETS.items() if medians[name] > target]
    copy_s = statistics.median(ours.copies_s)
    print(
        json.dumps(
            {
                **medians,
                "copy_s": round(copy_s, 4),
                "copy_at_limit_s": round(state_bytes / limit_bytes_per_s, 4),
                "to_host_pinned_bytes_per_s": round(limit_bytes_per_s),
                "step_s": round(statistics.median(samples.step_s[IDLE]), 4),
                "spread": {name: [round(min(values), 4), round(max(values), 4)] for name, values in found.items()},
                "targets": TARGETS,
                "targets_missed": missed,
                "device": name_of(device),
                "parameters": training.parameters,
                "state_bytes": state_bytes,
                "host_bytes": ours.host_bytes,
                "tokens": options.tokens,
                "steps": options.steps,
                "pairs": options.pairs,
                "torch": torch.__version__,
            }
        )
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
