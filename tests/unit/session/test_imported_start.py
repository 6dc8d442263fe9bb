"""A worker begins with a checkpoint that was imported: weights from there, all else as the program built it.

Without it a fine-tuning could begin with the wrong weights, or with an optimizer of nobody.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.checkpoint.state_dict_saver import save as save_dcp

from trainctl.checkpoint.importing import import_checkpoint
from trainctl.checkpoint.library import save
from trainctl.checkpoint.load.load_watch import LoadWatch
from trainctl.core.errors import CheckpointError, UnfitCheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.step import Outcome, StepAction
from trainctl.parallel.recovery.from_storage import StateLostError, StorageLoad
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.replica.training_state import TrainingState

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


class Seen:
    """A registered object."""

    count = 3

    def state_dict(self) -> dict[str, int]:
        return {"count": self.count}

    def load_state_dict(self, state: Any) -> None:
        self.count = state["count"]


def built(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
    return model, torch.optim.AdamW(model.parameters(), lr=0.1)


def replica_of(seed: int) -> Replica:
    model, optimizer = built(seed)
    return Replica(TrainingState(model=model, optimizers=[optimizer], objects={"seen": Seen()}), instance="island-0")


def load_into(replica: Replica, ref: CheckpointRef) -> None:
    record: Any = SimpleNamespace(lineage=2, target_step=ref.step, generation=1)
    waiter: Any = SimpleNamespace(touch=lambda: None)
    alone: Any = SimpleNamespace(size=1)
    StorageLoad(record=record, replica=replica, group=alone, waiter=waiter, watch=LoadWatch()).of(ref)


def weights(tmp_path: Path, *, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, CheckpointRef]:
    model, _ = built(1)
    (tmp_path / "hf").mkdir()
    halves = {name: t.to(dtype) if t.is_floating_point() else t for name, t in model.state_dict().items()}
    save_file(halves, tmp_path / "hf" / "model.safetensors")
    return model.to(dtype), import_checkpoint(str(tmp_path / "hf"), str(tmp_path / "own"), cursor=24).ref


def trained(replica: Replica) -> None:
    for parameter in replica.training.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    replica.retain(generation=1, step=replica.applied_step + 1)
    outcome = Outcome(
        generation=1,
        lineage=replica.lineage,
        step=replica.applied_step + 1,
        action=StepAction.APPLY,
        gradient_scale=1.0,
        learning_rate=0.1,
        loss_sum=1.0,
        tokens=1,
        gradient_norm=1.0,
        cursor=1,
        sample_digest=1,
    )
    replica.apply(outcome, reach=lambda point: None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_taken_and_the_rest_is_as_built(tmp_path: Path, dtype: torch.dtype) -> None:
    source, ref = weights(tmp_path, dtype=dtype)
    replica = replica_of(2)
    load_into(replica, ref)
    found = replica.training.model.state_dict()
    assert all(torch.equal(found[name], t.to(found[name].dtype)) for name, t in source.state_dict().items())
    assert (replica.applied_step, replica.lineage, replica.cursor) == (0, 2, 24)
    assert replica.checkpoint == ref
    (state, *_) = replica.training.optimizers[0].state.values()
    assert not state["exp_avg"].any()
    fresh = replica_of(2)
    load_into(fresh, ref)
    trained(replica)
    load_into(fresh, ref)  # a second time, since the first generation came to nothing
    trained(fresh)
    one, two = replica.training, fresh.training
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))
    moments = [list(training.optimizers[0].state.values()) for training in (one, two)]
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*moments, strict=True))
    assert all(a["step"] == 1 for a in moments[1])


def test_a_worker_that_has_trained_cannot_go_back_to_what_nobody_saved(tmp_path: Path) -> None:
    _, ref = weights(tmp_path)
    replica = replica_of(2)
    load_into(replica, ref)
    trained(replica)
    before = replica.digest()
    with pytest.raises(StateLostError, match="was imported and does not say what the program registers"):
        load_into(replica, ref)
    assert replica.digest() == before


def test_moments_go_on_where_the_folder_has_them(tmp_path: Path) -> None:
    model, optimizer = built(1)
    for _ in range(3):
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    state, moments = get_state_dict(model, optimizer)
    save_dcp({"model": state, "optim": moments}, checkpoint_id=str(tmp_path / "dcp"), no_dist=True)
    replica = replica_of(2)
    load_into(replica, import_checkpoint(str(tmp_path / "dcp"), str(tmp_path / "own"), step=3).ref)
    assert replica.applied_step == 3
    found = list(replica.training.optimizers[0].state.values())
    for one, two in zip(optimizer.state.values(), found, strict=True):
        assert all(torch.equal(one[kind], two[kind]) for kind in one)
    trained(replica)
    assert [float(state["step"]) for state in replica.training.optimizers[0].state.values()] == [4.0] * 4


def test_what_is_missing_is_listed(tmp_path: Path) -> None:
    _, ref = weights(tmp_path)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    replica = Replica(
        TrainingState(model=model, optimizers=[torch.optim.AdamW(model.parameters())]), instance="island-0"
    )
    with pytest.raises(CheckpointError, match=r"param of 1\.weight: expected shape \[2, 6\], found \[6\]"):
        load_into(replica, ref)


@pytest.mark.parametrize("alike", [True, False])
def test_what_a_script_saved_is_refused_by_that_reason_whether_or_not_its_names_fit(
    tmp_path: Path, alike: bool
) -> None:
    model, optimizer = built(1) if alike else (nn.Linear(3, 3), None)
    ref = save(tmp_path / "c", model=model, optimizers=[optimizer] if optimizer is not None else [], step=7)
    replica = replica_of(2)
    before = replica.digest()
    with pytest.raises(UnfitCheckpointError, match=r"was saved by a script .* does not say where in the data it was"):
        load_into(replica, ref)
    assert replica.digest() == before
