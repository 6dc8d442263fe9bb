"""``make bench-checkpoint``: saving and loading against torch's distributed checkpoint, and against the machine itself.

A state of sharded rows (parameters and two moments, fp32) in 1, 2 and 4 processes: it is saved durably and loaded into
as many processes, warm and cold, into another number of them, and cut otherwise: by trainctl (which verifies
checksums), by ``torch.distributed.checkpoint`` (which has none), and plainly: the same bytes written with fsync, and
read in blocks of 4 MiB. Then training goes on beside saves: how long it stands still, against a plain copy of the same
bytes a step before, and how much slower its steps are, against those right before. In turns within one run; the first
of each is dropped, and sees that the values that come back are those that were saved. Prints a table and, last, one
JSON line.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch

from benchmarks.checkpoint_library import LIBRARY
from benchmarks.checkpoint_rank import IO_THREADS, SIDES, forget_pages, held_bytes, serve, threads
from benchmarks.checkpoint_train import TOKENS, WAYS

STORAGE, TRAINING = "storage", "training"
PARTS = (STORAGE, TRAINING)
TARGETS = {
    "save_vs_raw_write": 1.3,
    "load_cold_vs_raw_read": 1.15,
    "load_warm_vs_raw_read": 2.0,
    "load_warm_vs_dcp": 0.5,
    "load_cold_vs_dcp": 0.85,
    "reshard_4to2_vs_dcp": 0.5,
    "reshard_2to4_vs_dcp": 0.5,
    "read_amplification_max": 1.02,
    "bytes_on_disk_ratio": 1.01,
    "stall_vs_memcpy": 1.3,
    "stall_lazy_vs_dcp_async": 0.1,
    "step_slowdown_while_saving": 1.25,
    "step_slowdown_vs_dcp": 0.8,
}
AGAINST = (
    ("stall_lazy_vs_dcp_async", "stall", "dcp", "lazy"),
    ("step_slowdown_vs_dcp", "slowdown", "dcp", "lazy"),
    ("stall_library_vs_dcp_async", "stall", "dcp", LIBRARY),
)
"""Figures of two ways to save beside training: what of it, the other way, and ours."""
ALONE = (("stall_vs_memcpy", "stall, copies", "eager"), ("step_slowdown_while_saving", "slowdown with", "lazy"))
"""Figures of one way, each turn against what was right before it."""
CUTS_LOADED = ("columns", "replicas")
"""Beside rows: what the most processes load, too."""


@dataclass(frozen=True, slots=True)
class World:
    """Running ranks.

    Attributes:
        pipes: to each of them.
        extra_bytes: the most memory that they took together beyond what they had, by what they did and for whom.
        read_bytes: that trainctl asked the storage for in each load.
    """

    pipes: Sequence[Connection]
    extra_bytes: dict[tuple[str, str], float] = field(default_factory=dict)
    read_bytes: list[float] = field(default_factory=list)

    @property
    def size(self) -> int:
        """How many."""
        return len(self.pipes)

    def do(self, verb: str, side: str, folder: Path) -> float:
        """Lets all of them do something; seconds until the last one had."""
        answer = self.ask(verb, side, folder)
        if not answer.get("same", True):
            raise RuntimeError(f"{side} with {self.size} processes: what was loaded is not what was saved")
        return answer["seconds"]

    def ask(self, verb: str, side: str, folder: Path) -> dict[str, float]:
        """Lets all of them do something; what rank 0 answers."""
        try:
            for pipe in self.pipes:
                pipe.send(f"{verb} {side} {folder}")
            answer: dict[str, float] = self.pipes[0].recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"{verb} by {side} with {self.size} processes: a rank has ended") from error
        if verb == "cut":
            return answer
        key = "load" if verb == "check" else verb, side
        self.extra_bytes[key] = max(self.extra_bytes.get(key, 0.0), answer["extra"])
        if key == ("load", "trainctl"):
            self.read_bytes.append(answer["read"])
        return answer


@contextmanager
def world(size: int, folder: Path, state_bytes: int, tokens: int) -> Iterator[World]:
    """So many ranks, until the end of the block: forks of this process, which imported everything and ran nothing."""
    rendezvous = folder / f"rendezvous-{size}"
    rendezvous.unlink(missing_ok=True)
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    processes = []

    def rank_of(rank: int, pipe: Connection) -> None:
        for other in pipes:  # this program's ends: who has none hears when it ends
            other.close()
        serve(rank, size, rendezvous, pipe, state_bytes=state_bytes, tokens=tokens)

    try:
        for rank in range(size):
            here, there = context.Pipe()
            pipes.append(here)
            processes.append(context.Process(target=rank_of, args=(rank, there)))
            processes[-1].start()
            there.close()
        yield World(pipes)
    finally:
        for process in processes:
            process.kill()
            process.join()
        for pipe in pipes:
            pipe.close()


class Samples:
    """Seconds by what was done, and memory by what was done for whom: the most of any number of ranks."""

    def __init__(self) -> None:
        self._taken: dict[str, dict[str, list[float]]] = {}
        self._extra_bytes: dict[tuple[str, str], float] = {}
        self.read_bytes: list[float] = []

    def note(self, ranks: World) -> None:
        """They are done. The first round counts, too: it makes what the later ones use again."""
        self.read_bytes += ranks.read_bytes
        for key, size_bytes in ranks.extra_bytes.items():
            self._extra_bytes[key] = max(self._extra_bytes.get(key, 0.0), size_bytes)

    def memory(self, *keys: tuple[str, str]) -> list[float]:
        """The most that any of these took, in bytes, as the only value; none where none of them was measured."""
        return [max(taken)] if (taken := [self._extra_bytes[key] for key in keys if key in self._extra_bytes]) else []

    def take(self, what: str, side: str, seconds: float) -> None:
        """Notes one."""
        self._taken.setdefault(what, {}).setdefault(side, []).append(seconds)

    def ratios(self, what: str, side: str, own: str = "trainctl") -> list[float]:
        """Of one side's seconds to those of the other, turn by turn."""
        taken = self._taken[what]
        return [ours / theirs for ours, theirs in zip(taken[own], taken[side], strict=True)]

    def of(self, what: str, side: str) -> list[float]:
        """Turn by turn."""
        return self._taken[what][side]

    def show(self) -> None:
        """Prints the table."""
        columns: tuple[str, ...] = ()
        for what, taken in self._taken.items():
            if columns != tuple(taken):
                columns = tuple(taken)
                print(f"\n{'':20}" + "".join(f"{side:>26}" for side in columns))
            cells = (f"{statistics.median(s):8.3f} ({min(s):.3f} to {max(s):.3f})" for s in taken.values())
            print(f"{what:20}" + "".join(f"{cell:>26}" for cell in cells), flush=True)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def in_turns(samples: Samples, what: str, ranks: World, verb: str, folders: dict[str, Path], pairs: int) -> None:
    """Every side does it once a round; who begins changes. The first round is dropped, and looks at the values."""
    for number in range(pairs + 1):
        for side in SIDES if number % 2 else tuple(reversed(SIDES)):
            if "cold" in what:
                forget_pages(folders[side])
            checks = verb == "load" and number == 0 and side != "raw"
            seconds = ranks.do("check" if checks and what.startswith("load") else verb, side, folders[side])
            if number:
                samples.take(what, side, seconds)


def other_cuts(samples: Samples, ranks: World, folders: dict[str, Path], pairs: int) -> None:
    """Loads what was saved as rows into columns, and whole by everybody: both sides must find the same."""
    for cut in CUTS_LOADED:
        ranks.ask("cut", cut, folders["trainctl"])
        for number in range(pairs + 1):
            found = set()
            for side in ("trainctl", "dcp") if number % 2 else ("dcp", "trainctl"):
                answer = ranks.ask("load" if number else "check", side, folders[side])
                if number:
                    samples.take(f"rows to {cut} with {ranks.size}", side, answer["seconds"])
                else:
                    found.add(answer["digest"])
            if len(found) > 1:
                raise RuntimeError(f"rows to {cut} with {ranks.size} processes: the two sides loaded other values")


def beside_training(samples: Samples, ranks: World, folder: Path, *, ways: Sequence[str], pairs: int) -> None:
    """Each way to save beside steps, once a round; the first round, which makes processes and memory, is dropped."""
    size = ranks.size
    for number in range(pairs + 1):
        for way in ways if number % 2 else reversed(ways):
            answer = ranks.ask("train", way, folder / "beside")
            if not number:
                continue
            samples.take(f"stall with {size}", way, answer["stall"])
            samples.take(f"step with {size}", way, answer["idle"])
            samples.take(f"forward, backward {size}", way, answer["compute"])
            samples.take(f"copy with {size}", way, answer["copy"])
            samples.take(f"stall, copies {size}", way, answer["stall"] / answer["copy"])
            samples.take(f"durable with {size}", way, answer["durable"])
            samples.take(f"slowdown with {size}", way, answer["step"] / answer["idle"])
            samples.take(f"lost with {size}", way, answer["lost"])
    shutil.rmtree(folder / "beside")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        worlds: numbers of processes.
        ways: how to save beside training.
        parts: of ``PARTS``.
        state_bytes: size of the state.
        tokens: in a step.
        pairs: rounds that count.
    """

    worlds: Sequence[int]
    ways: Sequence[str]
    parts: Sequence[str]
    state_bytes: int
    tokens: int
    pairs: int

    @property
    def reshards(self) -> Sequence[tuple[int, int]]:
        """From how many processes to how many."""
        return (*pairwise(self.worlds), *pairwise(reversed(self.worlds))) if STORAGE in self.parts else ()


def measure(samples: Samples, plan: Plan, folder: Path) -> dict[str, float]:
    """Everything; returns how many bytes trainctl has on the disk for each of the state."""
    found: dict[str, float] = {}

    def reshard(ranks: World, before: int, after: int) -> None:
        in_turns(samples, f"reshard {before} to {after}", ranks, "load", sides(folder, before), plan.pairs)

    for number, size in enumerate(plan.worlds):
        folders = sides(folder, size)
        with world(size, folder, plan.state_bytes, plan.tokens) as ranks:
            if STORAGE in plan.parts:
                in_turns(samples, f"save with {size}", ranks, "save", folders, plan.pairs)
                found[f"{size}"] = folder_bytes(folders["trainctl"]) / folder_bytes(folders["raw"])
                in_turns(samples, f"load warm with {size}", ranks, "load", folders, plan.pairs)
                in_turns(samples, f"load cold with {size}", ranks, "load", folders, plan.pairs)
                if number:
                    reshard(ranks, plan.worlds[number - 1], size)
            if TRAINING in plan.parts:
                beside_training(samples, ranks, folder, ways=plan.ways, pairs=plan.pairs)
            if STORAGE in plan.parts and size == max(plan.worlds) > 1:
                other_cuts(samples, ranks, folders, plan.pairs)
            samples.note(ranks)
    for before, after in plan.reshards[len(plan.worlds) - 1 :]:  # the others were done by ranks that were there
        with world(after, folder, plan.state_bytes, plan.tokens) as ranks:
            reshard(ranks, before, after)
            samples.note(ranks)
    return found


def sides(folder: Path, size: int) -> dict[str, Path]:
    """Where each side saves with so many processes."""
    return {side: folder / f"{side}-{size}" for side in SIDES}


def memory(samples: Samples, state_bytes: int) -> dict[str, list[float]]:
    """The most host memory beyond the state itself, for each byte of it; of a save the pooled copy is a part."""
    saves, loads = [("save", "trainctl"), ("train", "lazy"), ("train", "eager")], [("load", "trainctl")]
    found = {
        "peak_extra_host_memory_ratio": samples.memory(*saves, *loads),
        "peak_extra_host_memory_save_ratio": samples.memory(*saves),
        "peak_extra_host_memory_load_ratio": samples.memory(*loads),
        "peak_extra_host_memory_dcp_save_ratio": samples.memory(("save", "dcp"), ("train", "dcp")),
        "peak_extra_host_memory_dcp_load_ratio": samples.memory(("load", "dcp")),
    }
    return {name: [size / state_bytes for size in sizes] for name, sizes in found.items() if sizes}


def figures(samples: Samples, plan: Plan, on_disk: dict[str, float]) -> dict[str, list[float]]:
    """For each figure its ratios, one a turn, of the number of processes in which it is worst.

    Those that compare with a way that was not measured are left out.
    """

    def worst(what: str, side: str, own: str = "trainctl") -> list[float]:
        return max((samples.ratios(f"{what} with {size}", side, own) for size in plan.worlds), key=statistics.median)

    found: dict[str, list[float]] = {}
    if STORAGE in plan.parts:
        found |= {
            "save_vs_raw_write": worst("save", "raw"),
            "save_vs_dcp": worst("save", "dcp"),
            "load_cold_vs_raw_read": worst("load cold", "raw"),
            "load_warm_vs_raw_read": worst("load warm", "raw"),
            "load_warm_vs_dcp": worst("load warm", "dcp"),
            "load_cold_vs_dcp": worst("load cold", "dcp"),
            "bytes_on_disk_ratio": list(on_disk.values()),
            "read_amplification_max": [max(samples.read_bytes) / held_bytes(plan.state_bytes)],
        }
        if (most := max(plan.worlds)) > 1:
            for cut in CUTS_LOADED:
                found[f"rows_to_{cut}_vs_dcp"] = samples.ratios(f"rows to {cut} with {most}", "dcp")
    if TRAINING in plan.parts:
        for name, what, own in ALONE:
            if own in plan.ways:
                turns = [samples.of(f"{what} {size}", own) for size in plan.worlds]
                found[name] = max(turns, key=statistics.median)
        for name, what, side, own in AGAINST:
            if {side, own} <= set(plan.ways):
                found[name] = worst(what, side, own)
    for before, after in plan.reshards:
        found[f"reshard_{before}to{after}_vs_dcp"] = samples.ratios(f"reshard {before} to {after}", "dcp")
    return found


def some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Reads names of what there is, each once."""

    def chosen(text: str) -> list[str]:
        names = list(dict.fromkeys(text.split(",")))
        if unknown := [name for name in names if name not in known]:
            wrong = ", ".join(map(repr, unknown))
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, found {wrong}")
        return names

    return chosen


def positive(text: str) -> int:
    """At least one."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected 1 or more, found {text!r}")
    return int(text)


def sizes(text: str) -> list[int]:
    """Numbers of processes, each once, in the order in which they come."""
    return list(dict.fromkeys(map(positive, text.split(","))))


def plan_of(options: argparse.Namespace) -> Plan:
    """What somebody asks for."""
    return Plan(
        worlds=options.worlds,
        ways=options.ways,
        parts=options.parts,
        state_bytes=options.mib << 20,
        tokens=options.tokens,
        pairs=options.pairs,
    )


def parser() -> argparse.ArgumentParser:
    """Of the command line."""
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--pairs", type=positive, default=5)
    found.add_argument("--mib", type=positive, default=1068, help="size of the state")
    found.add_argument("--worlds", type=sizes, default="1,2,4", help="numbers of processes")
    found.add_argument("--parts", type=some_of(PARTS), default=",".join(PARTS), help="what to measure")
    ways = "how to save beside training; figures of other ways are left out"
    found.add_argument("--ways", type=some_of(WAYS), default=",".join(WAYS), help=ways)
    found.add_argument("--tokens", type=positive, default=TOKENS, help="in a step beside saves")
    found.add_argument("--dir", type=Path, help="where to save; a temporary folder")
    return found


def main() -> int:
    options = parser().parse_args()
    plan = plan_of(options)
    if options.dir is not None:
        options.dir.mkdir(parents=True, exist_ok=True)
    samples = Samples()
    folder = Path(tempfile.mkdtemp(prefix="bench-checkpoint-", dir=options.dir))
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {folder}", flush=True)
    try:
        on_disk = measure(samples, plan, folder)
    finally:
        shutil.rmtree(folder)
    samples.show()
    found = {**figures(samples, plan, on_disk), **memory(samples, held_bytes(plan.state_bytes))}
    medians = {name: round(statistics.median(ratios), 3) for name, ratios in found.items()}
    missed = [name for name, target in TARGETS.items() if name in medians and medians[name] > target]
    print(
        json.dumps(
            {
                **medians,
                "spread": {name: [round(min(r), 3), round(max(r), 3)] for name, r in found.items()},
                "targets": TARGETS,
                "targets_missed": missed,
                "state_bytes": held_bytes(plan.state_bytes),
                "tokens": plan.tokens,
                "pairs": plan.pairs,
                "worlds": plan.worlds,
                "threads": [threads(size) for size in plan.worlds],
                "io_threads": IO_THREADS,
                "torch": torch.__version__,
                "load_1min": round(os.getloadavg()[0], 2),
            }
        )
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
