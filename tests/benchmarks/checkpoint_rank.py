"""One rank of ``make bench-checkpoint``: holds its rows of the state, and saves and loads them as it is told.

Lines come through a pipe: what to do, who, and in which folder. All ranks begin together; the first one answers with
the seconds until the last one was done.
"""

from __future__ import annotations

import gc
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch._dynamo  # torch takes it at the first DTensor, which lasts: forks of a process that has it do not
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from benchmarks.checkpoint_train import Training
from benchmarks.host_memory import Peak
from trainctl.checkpoint.engine import Attempt, CheckpointWriter, assign, attempt_id, load, resolve
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.layout import Layout, rank_holder
from trainctl.checkpoint.library.ranks import Ranks
from trainctl.checkpoint.live.dtensor import local_part
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.live.tensors import byte_view
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.checkpoint.load.sharing import Sharing
from trainctl.checkpoint.save.saving import live_data
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.system.faults import FaultPlan

KINDS = ("param", "exp_avg", "exp_avg_sq")
IO_THREADS = 2
"""Of each rank that write or read, on all sides."""
HIDDEN = 768
BLOCK_BYTES = 4 << 20


def threads(world: int) -> int:
    """Threads that each rank computes with: its share of the cores, as a worker of trainctl has by default."""
    return max(1, len(os.sched_getaffinity(0)) // world)


def shapes(state_bytes: int) -> dict[str, tuple[int, ...]]:
    """Parameters of a decoder with as many layers as the size takes: names and global shapes."""
    layer = _layer(HIDDEN)
    if _bytes(layer) > state_bytes:  # only to try out the program
        layer = _layer(HIDDEN // 6)
    count = max(1, state_bytes // _bytes(layer))
    return {f"layers.{n}.{name}.weight": shape for n in range(count) for name, shape in layer.items()}


def _layer(hidden: int) -> dict[str, tuple[int, ...]]:
    inner = hidden * 8 // 3
    return {"attn.q": (hidden, hidden), "attn.k": (hidden, hidden), "attn.v": (hidden, hidden),
            "attn.o": (hidden, hidden), "mlp.gate": (inner, hidden), "mlp.up": (inner, hidden),
            "mlp.down": (hidden, inner), "norm": (hidden,)}  # fmt: skip


def _bytes(tensors: dict[str, tuple[int, ...]]) -> int:
    """With their moments."""
    return 4 * len(KINDS) * sum(torch.Size(shape).numel() for shape in tensors.values())


def held_bytes(state_bytes: int) -> int:
    """Size of the state that is made for one of so many bytes: whole layers."""
    return _bytes(shapes(state_bytes))


CUTS: dict[str, Callable[[int], Placement]] = {
    "rows": lambda dims: Shard(0),
    "columns": lambda dims: Shard(min(1, dims - 1)),
    "replicas": lambda dims: Replicate(),
}
"""What each rank holds, by the number of a tensor's dims."""


class State:
    """What this rank holds, as DTensors and as the state that trainctl saves."""

    def __init__(self, rank: int, world: int, state_bytes: int, cut: str = "rows") -> None:
        mesh: DeviceMesh = init_device_mesh("cpu", (world,))
        generator = torch.Generator().manual_seed(rank)
        self.tensors: dict[str, DTensor] = {}
        held = []
        for name, shape in shapes(state_bytes).items():
            for kind in KINDS:
                tensor = torch.distributed.tensor.zeros(shape, device_mesh=mesh, placements=[CUTS[cut](len(shape))])
                values = tensor.to_local().normal_(generator=generator)
                if kind == "exp_avg_sq":
                    values.abs_()
                self.tensors[f"{kind}.{name}"] = tensor
                local, _, region = local_part(tensor)
                key = StateKey(name, kind, "F32", "island-0", StateVersion(1, 1))
                held.append(StateTensor(key, shape, region, local))
        self.own = LocalState(tuple(held))
        parts: list[Layout] = [Layout({}, {})] * world
        dist.all_gather_object(parts, self.own.layout(rank_holder(rank)))
        self.whole = Layout(parts[0].shapes, {holder: held for part in parts for holder, held in part.holders.items()})
        self.assigned = assign(self.whole)[rank_holder(rank)]

    @property
    def locals(self) -> list[memoryview]:
        """The bytes of all tensors."""
        return [byte_view(held.tensor.reshape(-1)) for held in self.own.tensors if held.tensor.numel()]

    def digest(self) -> float:
        """Changes when values do."""
        return sum(held.tensor.double().sum().item() * number for number, held in enumerate(self.own.tensors, 1))


class Rank:
    """What this rank does when it is told to."""

    def __init__(self, rank: int, world: int, *, state_bytes: int, tokens: int) -> None:
        self._rank, self._world, self._tokens, self._state_bytes = rank, world, tokens, state_bytes
        self.read_bytes = 0
        self._state = State(rank, world, state_bytes)
        self.verbs: dict[str, Callable[[Path], None]] = {
            f"{verb} {side}": getattr(self, f"_{verb}_{side}") for verb in ("save", "load") for side in SIDES
        }
        self._training: Training | None = None
        self._peak = Peak()

    def train(self, way: str, folder: Path) -> dict[str, float]:
        """Steps beside a save; the longest seconds of all ranks, and the memory that they took together."""
        if self._training is None:
            state = self._state
            self._training = Training(self._rank, state.own, state.assigned, state.tensors, tokens=self._tokens)
        self._peak.begin()
        found = self._training.save(way, folder)
        longest = torch.tensor(list(found.values()), dtype=torch.float64)
        dist.all_reduce(longest, dist.ReduceOp.MAX)
        return {**dict(zip(found, longest.tolist(), strict=True)), "extra": self._extra()}

    def _extra(self) -> float:
        """The most that the ranks had beyond what they had before, in bytes, as if all had it at one moment."""
        return self._sum(self._peak.extra_bytes)

    @staticmethod
    def _sum(value: float) -> float:
        """Over all ranks."""
        total = torch.tensor(float(value), dtype=torch.float64)
        dist.all_reduce(total)
        return total.item()

    def _save_trainctl(self, folder: Path) -> None:
        writer = CheckpointWriter(str(folder), faults=FaultPlan())
        attempt = Attempt(job="j", step=1, lineage=1, epoch=1, attempt=attempt_id("j", 1, 1, "n", 1))
        data = live_data(self._state.own, self._state.assigned)
        report = writer.write_part(attempt, writer=self._rank, data=data, shapes=self._state.own.shapes())
        reports = [report] * self._world
        dist.all_gather_object(reports, report)
        if self._rank == 0:
            writer.seal(attempt, state=self._state.own, parts=reports, parent=None)

    def _load_trainctl(self, folder: Path) -> None:
        self._load(folder, self._state)

    def _load(self, folder: Path, state: State) -> None:
        ref: CheckpointRef = resolve(str(folder))
        watch = LoadWatch()
        with Ranks(None).exchange() as exchange:
            sharing = Sharing(exchange, state.whole) if exchange is not None else None
            keys = state.whole.shapes
            load(ref, state.own, everything=keys, verify_first=False, watch=watch, sharing=sharing)
        self.read_bytes = watch.moved_bytes

    def _save_dcp(self, folder: Path) -> None:
        writer = FileSystemWriter(folder, thread_count=IO_THREADS)
        state_dict_saver.save(dict(self._state.tensors), storage_writer=writer)

    def _load_dcp(self, folder: Path) -> None:
        state_dict_loader.load(dict(self._state.tensors), storage_reader=FileSystemReader(folder))

    def _save_raw(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder / f"{self._rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        position = 0
        for data in self._state.locals:
            for begin in range(0, len(data), BLOCK_BYTES):
                position += os.pwrite(descriptor, data[begin : begin + BLOCK_BYTES], position)
        os.fsync(descriptor)
        os.close(descriptor)

    def _load_raw(self, folder: Path) -> None:
        """This rank's share of the bytes, whoever wrote them, with nothing checked."""
        files = sorted(folder.iterdir(), key=lambda path: int(path.name))
        ends = [path.stat().st_size for path in files]
        low, high = (sum(ends) * rank // self._world for rank in (self._rank, self._rank + 1))
        jobs, targets, start = [], iter(self._blocks()), 0
        for path, size in zip(files, ends, strict=True):
            position = max(low - start, 0)
            while position < min(high - start, size):
                target = next(targets, None)
                if target is None:
                    break
                jobs.append((path, position, target[: min(high - start, size) - position]))
                position += len(jobs[-1][2])
            start += size
        with ThreadPoolExecutor(IO_THREADS) as pool:
            list(pool.map(_read, jobs))

    def _blocks(self) -> list[memoryview]:
        return [d[b : b + BLOCK_BYTES] for d in self._state.locals for b in range(0, len(d), BLOCK_BYTES)]

    def do(self, line: str) -> dict[str, float]:
        """Seconds of what the line says; after a load, whether the values are those that were saved."""
        verb, side, folder = line.split()
        if verb == "train":
            return self.train(side, Path(folder))
        if verb == "cut":
            self._state = State(self._rank, self._world, self._state_bytes, cut=side)
            return {}
        before = self._state.digest() if verb == "check" else 0.0
        if verb == "check":
            for data in self._state.locals:
                data[:] = bytes(len(data))
        self._peak.begin()
        dist.barrier()
        began_s = time.perf_counter()
        self.verbs[f"{'load' if verb == 'check' else verb} {side}"](Path(folder))
        dist.barrier()
        seconds, extra = time.perf_counter() - began_s, self._extra()
        answer = {"seconds": seconds, "extra": extra, "read": self._sum(self.read_bytes)}
        if verb == "check":
            digest = self._state.digest()
            answer |= {"same": before == digest, "digest": self._sum(digest)}
        return answer


SIDES = ("trainctl", "dcp", "raw")


def _read(job: tuple[Path, int, memoryview]) -> None:
    path, position, target = job
    descriptor = os.open(path, os.O_RDONLY)
    done = 0
    while done < len(target):
        done += os.preadv(descriptor, [target[done:]], position + done)
    os.close(descriptor)


def forget_pages(folder: Path) -> None:
    """Takes the files out of the page cache."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def serve(rank: int, world: int, rendezvous: Path, pipe: Connection, *, state_bytes: int, tokens: int) -> None:
    """Does what the pipe says until nobody holds its other end any more."""
    os.environ["OMP_NUM_THREADS"] = str(threads(world))  # of processes that torch starts for its saves
    torch.set_num_threads(threads(world))
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world)
    this = Rank(rank, world, state_bytes=state_bytes, tokens=tokens)
    gc.collect()
    gc.freeze()  # as trainctl's workers: else Python goes through all of torch at some saves (0.3 s), whoever saves
    while True:
        try:
            line: str = pipe.recv()
        except EOFError:
            return
        if rank == 0 and line.startswith(("save", "train")):
            shutil.rmtree(line.split()[2], ignore_errors=True)
            os.sync()  # what the turn before has left to the disk is not this one's to wait for
        dist.barrier()
        answer = this.do(line)
        if rank == 0:
            pipe.send(answer)
