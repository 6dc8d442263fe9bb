"""What the ranks of ``test_library`` do: a module of its own, which their processes can import."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from trainctl.checkpoint.engine import CheckpointWriter
from trainctl.checkpoint.layout.key import StateKey, StateVersion
from trainctl.checkpoint.layout.region import Box, Flat
from trainctl.checkpoint.library import Checkpointer, load, load_state, save, save_state
from trainctl.checkpoint.library.group_save import GroupSave
from trainctl.checkpoint.live.state import LocalState, StateTensor
from trainctl.checkpoint.load import batches, blocks, filling, readers
from trainctl.checkpoint.save.saving import EntryData
from trainctl.core.errors import CheckpointError


def _key(fqn: str) -> StateKey:
    return StateKey(fqn, "param", "F32", "island-0", StateVersion(0, 0))


Body = Callable[[Path, int, int], None]


def run_rank(body: Body, folder: Path, rank: int, size: int, number: int, errors: Any) -> None:
    torch.set_num_threads(1)
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{number}", rank=rank, world_size=size)
        body(folder, rank, size)
        dist.destroy_process_group()
    except BaseException:
        errors.put(f"rank {rank}:\n{traceback.format_exc()}")
        raise


def built(sharded: bool, size: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(3)
    model: nn.Module = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 3)).double()
    if sharded:
        fully_shard(model, mesh=init_device_mesh("cpu", (size,)))
    else:
        model = nn.parallel.DistributedDataParallel(model)
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, begin: int, end: int) -> float:
    loss = torch.zeros(())
    for step in range(begin, end):
        optimizer.zero_grad()
        rows = torch.randn(12, 6, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        loss = model(rows).square().mean()  # the same on all ranks, so that their number does not matter
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def saves_sharded(folder: Path, rank: int, size: int) -> None:
    model, optimizer = built(True, size)
    train(model, optimizer, 0, 3)
    save(str(folder / "c"), model=model, optimizers=[optimizer], step=3, objects={"seen": 36})
    (folder / f"expected-{rank}").write_text(repr(train(model, optimizer, 3, 6)))


def goes_on_sharded(folder: Path, rank: int, size: int) -> None:
    model, optimizer = built(True, size)
    _goes_on(folder, model, optimizer)


def goes_on_in_ddp(folder: Path, rank: int, size: int) -> None:
    model, optimizer = built(False, size)
    _goes_on(folder, model, optimizer)


def _goes_on(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    found = load(str(folder / "c"), model=model, optimizers=[optimizer])
    assert (found.step, found.objects) == (3, {"seen": 36})
    loss = train(model, optimizer, 3, 6)
    assert loss == pytest.approx(float((folder / "expected-0").read_text()), rel=1e-10)


def _flat(begin: int, end: int) -> LocalState:
    values = torch.arange(float(begin), float(end))
    key = StateKey("w", "exp_avg", "F32", "island-0", StateVersion(0, 0))
    own = StateKey(f"stage-{begin}", "param", "F32", "island-0", StateVersion(0, 0))
    only_here = StateTensor(own, (2,), Flat(0, 2), torch.full((2,), float(begin)))
    return LocalState((StateTensor(key, (5, 4), Flat(begin, end), values), only_here))


def saves_flat(folder: Path, rank: int, size: int) -> None:
    """Irregular ranges of one tensor, and one tensor that only this rank has, as in a pipeline."""
    begin, end = [(0, 3), (3, 11), (11, 20)][rank]
    save_state(str(folder / "flat"), _flat(begin, end), step=7)


def loads_boxes(folder: Path, rank: int, size: int) -> None:
    key = StateKey("w", "exp_avg", "F32", "island-0", StateVersion(0, 0))
    columns = torch.zeros(5, 2)
    wanted = [StateTensor(key, (5, 4), Box((0, 2 * rank), (5, 2)), columns)]
    stages = {begin: torch.zeros(2) for begin in ((0, 3), (11,))[rank]}
    for begin, into in stages.items():
        own = StateKey(f"stage-{begin}", "param", "F32", "island-0", StateVersion(0, 0))
        wanted.append(StateTensor(own, (2,), Flat(0, 2), into))
    load_state(str(folder / "flat"), LocalState(tuple(wanted)))
    assert torch.equal(columns, torch.arange(20.0).reshape(5, 4)[:, 2 * rank : 2 * rank + 2])
    assert all(torch.equal(into, torch.full((2,), float(begin))) for begin, into in stages.items())


def one_rank_finds_damage(folder: Path, rank: int, size: int) -> None:
    """Two checkpoints; in the newer one bytes that only rank 1 reads are damaged: all take the older one."""
    begin, end = [(0, 3), (3, 11), (11, 20)][rank]
    first = save_state(str(folder / "two"), _flat(begin, end), step=1)
    second = save_state(str(folder / "two"), _flat(begin, end), step=2)
    if rank == 0:
        path = Path(second.uri) / "data" / "w00001-000.safetensors"
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    dist.barrier()
    wanted = _flat(begin, end)
    for tensor in wanted.tensors:
        tensor.tensor.zero_()
    with pytest.raises(CheckpointError, match=r"(?s)rank 1: .*w00001-000.safetensors is corrupt"):
        load_state(str(folder / "two"), wanted)
    found = load_state(str(folder / "two"), wanted, fallback=True)
    assert (found.uri, found.step) == (first.uri, 1)
    (problem,) = found.passed_over
    assert problem.startswith(f"rank 1: {second.uri}/data/w00001-000.safetensors is corrupt")
    assert all(torch.equal(t.tensor, s.tensor) for t, s in zip(wanted.tensors, _flat(begin, end).tensors, strict=True))
    again = load_state(str(folder / "two"), wanted, fallback=True)
    assert (again.uri, "was found damaged" in again.passed_over[0]) == (first.uri, True)


def saves_rows(folder: Path, rank: int, size: int) -> None:
    rows = torch.arange(900 * 1000.0).reshape(900, 1000)[300 * rank : 300 * rank + 300].clone()
    held = StateTensor(_key("w"), (900, 1000), Box((300 * rank, 0), (300, 1000)), rows)
    save_state(str(folder / "rows"), LocalState((held,)), step=1)


def loads_columns_and_replicas(folder: Path, rank: int, size: int) -> None:
    """Every rank reads for all others, many small messages at a time."""
    for module, name, size_bytes in (
        (blocks, "PIECE_BYTES", 256 << 10),
        (batches, "PIECE_BYTES", 256 << 10),
        (readers, "TURN_BYTES", 256 << 10),
        (filling, "WINDOW_BYTES", 512 << 10),
    ):
        setattr(module, name, size_bytes)
    whole = torch.arange(900 * 1000.0).reshape(900, 1000)
    cut = slice(250 * rank, 250 * rank + 250)
    wanted = StateTensor(_key("w"), (900, 1000), Box((0, cut.start), (900, 250)), torch.zeros(900, 250))
    with pytest.raises(CheckpointError):  # nobody waits where all find the same
        load_state(str(folder / "nowhere"), LocalState((wanted,)))
    load_state(str(folder / "rows"), LocalState((wanted,)))
    assert torch.equal(wanted.tensor, whole[:, cut])
    replica = StateTensor(_key("w"), (900, 1000), Box((0, 0), (900, 1000)), torch.zeros(900, 1000))
    load_state(str(folder / "rows"), LocalState((replica,)), verify_first=True)
    assert torch.equal(replica.tensor, whole)


def one_rank_fails(folder: Path, rank: int, size: int) -> None:
    """One that cannot write leaves nobody waiting, and nothing that counts."""
    model, _ = built(False, size)
    place = folder / "c" if rank else folder / "file" / "c"
    if rank == 0:
        (folder / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match=r"(?s)saving step 1.*rank 0: .*"):
        save(str(place), model=model, step=1)
    with pytest.MonkeyPatch.context() as patch:
        if rank == 1:
            patch.setattr(CheckpointWriter, "write_part", _refused)
        with pytest.raises(CheckpointError, match=r"rank 1: .*no room"):
            save(str(folder / "d"), model=model, step=1)
    assert list((folder / "d").iterdir()) == [], "what the others wrote goes, too: the disk is full"


def _refused(*arguments: object, **named: object) -> None:
    raise OSError("no room")


def one_rank_has_what_cannot_be_saved(folder: Path, rank: int, size: int) -> None:
    """It fails before anybody compares what they hold: nobody waits for it there."""
    model = nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    save(str(folder / "c"), model=model, optimizers=[optimizer], step=1)
    if rank == 1:
        model.register_buffer("odd", torch.zeros(2, dtype=torch.complex128))
    with pytest.raises(CheckpointError, match=r"(?s)rank 1: .*odd"):
        save(str(folder / "c"), model=model, step=2)
    with pytest.raises(CheckpointError, match=r"(?s)loading.*rank 1: .*odd"):
        load(str(folder / "c"), model=model)
    with Checkpointer(str(folder / "c")) as checkpointer:
        with pytest.raises(CheckpointError, match=r"(?s)rank 1: .*odd"):
            checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
        if rank == 1:
            del model.odd
        assert checkpointer.async_save(model=model, optimizers=[optimizer], step=3).result().step == 3


def single() -> tuple[nn.Module, torch.optim.Optimizer]:
    """What ``built`` makes, in a process of its own."""
    model = nn.Sequential(nn.Linear(6, 7), nn.GELU(), nn.Linear(7, 3)).double()
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def saves_in_place(folder: Path, rank: int, size: int) -> None:
    model, optimizer = built(True, size)
    train(model, optimizer, 0, 2)
    save(str(folder / "c"), model=model, optimizers=[optimizer], step=2, layout="hf")


def saves_dcp(folder: Path, rank: int, size: int) -> None:
    """The same state, once with torch and once with ours."""
    model, optimizer = built(True, size)
    train(model, optimizer, 0, 3)
    weights, moments = get_state_dict(model, optimizer)
    save_dcp({"model": weights, "optim": moments}, checkpoint_id=str(folder / "dcp"))
    save(str(folder / "c"), model=model, optimizers=[optimizer], step=3)


def saves_beside(folder: Path, rank: int, size: int, *, sharded: bool) -> None:
    """The same state, once at once and twice beside the training, which goes on with collectives of its own."""
    model, optimizer = built(sharded, size)
    train(model, optimizer, 0, 3)
    save(str(folder / "at once"), model=model, optimizers=[optimizer], step=3, objects={"seen": 36})
    with Checkpointer(str(folder / "c"), keep=2) as checkpointer:
        first = checkpointer.async_save(model=model, optimizers=[optimizer], step=3, objects={"seen": 36})
        (folder / f"expected-{rank}").write_text(repr(train(model, optimizer, 3, 6)))
        second = checkpointer.async_save(model=model, optimizers=[optimizer], step=6)
        train(model, optimizer, 6, 9)
        refs = [first.result(), second.result()]
    assert [ref.step for ref in refs] == [3, 6]
    told: list[Any] = [None] * size
    dist.all_gather_object(told, [ref.manifest_sha256 for ref in refs])
    assert told == [told[0]] * size, "all ranks hear of the same checkpoints"
    values = []
    for uri in (str(folder / "at once"), refs[0].uri):
        load(uri, model=model, optimizers=[optimizer])
        local = (p.to_local() if hasattr(p, "to_local") else p for p in model.parameters())
        values.append([tensor.detach().clone() for tensor in local])
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))


def ddp_beside(folder: Path, rank: int, size: int) -> None:
    saves_beside(folder, rank, size, sharded=False)


def sharded_beside(folder: Path, rank: int, size: int) -> None:
    saves_beside(folder, rank, size, sharded=True)


def goes_on_from_beside(folder: Path, rank: int, size: int) -> None:
    model, optimizer = built(True, size)
    found = load(str(folder / "c" / "step-000000000003"), model=model, optimizers=[optimizer])
    assert (found.step, found.objects) == (3, {"seen": 36})
    assert train(model, optimizer, 3, 6) == pytest.approx(float((folder / "expected-0").read_text()), rel=1e-10)


def one_rank_fails_beside(folder: Path, rank: int, size: int) -> None:
    """Every rank hears it, at the handle or at the next save, and all go on together."""
    model, optimizer = built(True, size)
    train(model, optimizer, 0, 1)
    whole = GroupSave.write

    def refused(save: GroupSave, own: int, data: EntryData, **named: Any) -> Any:
        if own == 1 and save.attempt.step in (1, 2):
            raise OSError(28, "no space left on device")
        return whole(save, own, data, **named)

    GroupSave.write = refused  # type: ignore[method-assign, assignment]
    with Checkpointer(str(folder / "c"), retry_after_s=()) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=1)
        train(model, optimizer, 1, 2)
        with pytest.raises(CheckpointError, match=r"(?s)saving step 1 .*\nrank 1: .*no space left on device"):
            pending.result()
        assert not [path for path in (folder / "c").rglob("*") if path.is_file()]
        unasked = checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
        train(model, optimizer, 2, 3)
        if rank == 0:  # one that was told does not leave the others alone with it
            with pytest.raises(CheckpointError, match="rank 1: "):
                unasked.result()
        with pytest.raises(CheckpointError, match=r"(?s)rank 1: saving step 2 .*no space left"):
            checkpointer.async_save(model=model, optimizers=[optimizer], step=3)
        assert checkpointer.async_save(model=model, optimizers=[optimizer], step=3).result().step == 3
    with Checkpointer(str(folder / "c")) as another:  # of the same ranks, when the first one's group has ended
        assert another.async_save(model=model, optimizers=[optimizer], step=4).result().step == 4


def one_rank_is_killed_beside(folder: Path, rank: int, size: int) -> None:
    """In the middle of its part; the others hear of it, and the checkpoint before is the newest."""
    model, optimizer = built(False, size)
    train(model, optimizer, 0, 1)
    checkpointer = Checkpointer(str(folder / "c"))
    checkpointer.async_save(model=model, optimizers=[optimizer], step=1).result()
    whole = GroupSave.write

    def killed(save: GroupSave, own: int, data: EntryData, **named: Any) -> Any:
        if own == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return whole(save, own, data, **named)

    GroupSave.write = killed  # type: ignore[method-assign, assignment]
    pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=2)
    with pytest.raises(CheckpointError, match=r"saving step 2 .*: a rank is gone or silent: "):
        pending.result()
    (folder / f"survived-{rank}").touch()
    os._exit(0)  # its group is broken: torch would wait for it


def goes_on_alone(folder: Path, rank: int, size: int) -> None:
    """One rank loads what three have saved, and saves there; what was torn is no obstacle."""
    model, optimizer = built(False, size)
    assert load(str(folder / "c"), model=model, optimizers=[optimizer]).step == 1
    with Checkpointer(str(folder / "c"), keep=1) as checkpointer:
        assert checkpointer.async_save(model=model, optimizers=[optimizer], step=2).result().step == 2


def one_rank_makes_another_call(folder: Path, rank: int, size: int) -> None:
    """Nothing is written before all ranks have the same in mind."""
    model, optimizer = built(True, size)
    train(model, optimizer, 0, 1)
    uri = str(folder / "c")
    optimizers = [optimizer] if rank != 1 else []
    with pytest.raises(
        CheckpointError, match=r"(?m)the same call on all ranks, found:\nstep: 3 on ranks? 0(,2)?, 4 on rank 1$"
    ):
        save(uri, model=model, optimizers=[optimizer], step=4 if rank == 1 else 3)
    words = r"(?m)found:\noptimizers: 1 on ranks? 0(,2)?, 0 on rank 1$"
    with pytest.raises(CheckpointError, match=words):
        save(uri, model=model, optimizers=optimizers, step=3)
    with Checkpointer(uri) as checkpointer:
        with pytest.raises(CheckpointError, match=words):
            checkpointer.async_save(model=model, optimizers=optimizers, step=3)
        with pytest.raises(CheckpointError, match="step: 3 on"):
            checkpointer.async_save(model=model, optimizers=[optimizer], step=4 if rank == 1 else 3)
        with pytest.raises(CheckpointError, match="rank 1: ValueError: not now"):
            checkpointer.async_save(model=_Refusing() if rank == 1 else nn.Linear(1, 1), step=3)
    nowhere: Any = None
    words = "rank 1: uri: expected a folder, found None"
    with pytest.raises(CheckpointError, match=words):
        save(nowhere if rank == 1 else uri, model=model, optimizers=[optimizer], step=3)
    with pytest.raises(CheckpointError, match=words):
        Checkpointer(nowhere if rank == 1 else uri)
    dist.barrier()
    assert not (folder / "c").exists()
    with Checkpointer(uri) as checkpointer:
        assert checkpointer.async_save(model=model, optimizers=[optimizer], step=3).result().step == 3
    words = r"found:\nfallback: False on ranks? 0(,2)?, True on rank 1\nverify_first: True on ranks? 0(,2)?, False on"
    with pytest.raises(CheckpointError, match=words):
        load(uri, model=model, optimizers=[optimizer], fallback=rank == 1, verify_first=rank != 1)


class _Refusing(nn.Linear):
    def __init__(self) -> None:
        super().__init__(1, 1)

    def get_extra_state(self) -> object:
        raise ValueError("not now")


def replicas_are_compared(folder: Path, rank: int, size: int) -> None:
    """Without the comparison the checkpoint has a share of each rank's values."""
    uri = str(folder / "c")
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.Linear(64, 64))
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(1)
    for name in ("1.running_mean", "0.weight", "2.weight") if rank else ():
        model.state_dict()[name].fill_(2)
    with pytest.raises(CheckpointError) as caught:
        save(uri, model=model, step=1, check_replicas=True)
    assert str(caught.value).splitlines()[1:] == [
        "param of {0,2}.weight (2 tensors): ranks 1-2 hold other values than rank 0",
        "buffer of 1.running_mean: ranks 1-2 hold other values than rank 0",
    ]
    with pytest.raises(CheckpointError, match="check_replicas: True on rank 0, False on ranks 1-2"):
        save(uri, model=model, step=1, check_replicas=rank == 0)
    dist.barrier()
    assert not (folder / "c").exists()
    for tensor in model.state_dict().values():
        dist.broadcast(tensor, 0)
    save(uri, model=model, step=1, check_replicas=True)
    sharded, optimizer = built(True, size)
    save(str(folder / "sharded"), model=sharded, optimizers=[optimizer], step=1, check_replicas=True)
