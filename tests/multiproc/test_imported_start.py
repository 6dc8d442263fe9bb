"""A job that begins with an imported folder trains as if its weights had been there from the start.

Without it a fine-tuning could begin with weights that are not those of the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from multiproc.armed_faults import fault
from multiproc.toy import build, final_states
from multiproc.toy_world import make
from trainctl.checkpoint.importing import import_checkpoint
from trainctl.core.records.generation import CheckpointRef, Rung
from trainctl.core.records.spec import CheckpointSpec, JobSpec

pytestmark = pytest.mark.multiproc
SIZE, STEPS, HIDDEN = 2, 5, 150


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The final state of a job whose workers draw the weights themselves."""
    folder = tmp_path_factory.mktemp("expected")
    with make(folder, size=SIZE, steps=STEPS, bare=True) as w:
        w.run()
    (state,) = final_states(folder, SIZE)
    return state


def imported(folder: Path) -> CheckpointRef:
    """The weights that seed 1 draws, by way of a Hugging Face folder."""
    model, _ = build(1, HIDDEN, torch.float32)
    (folder / "hf").mkdir()
    save_file(model.state_dict(), folder / "hf" / "model.safetensors")
    return import_checkpoint(str(folder / "hf"), str(folder / "own")).ref


def begin(folder: Path, *faults: dict[str, Any], spec: JobSpec = JobSpec()) -> Any:  # noqa: B008  (it is frozen)
    w = make(folder, *faults, size=SIZE, steps=STEPS, bare=True, elsewhere=True, spec=spec)
    w.resume = imported(folder)
    return w


def test_weights_alone_are_enough(tmp_path: Path, expected: bytes) -> None:
    with begin(tmp_path, spec=JobSpec(checkpoint=CheckpointSpec(layout="hf"))) as w:
        w.run()
        assert [record.rung for record in w.records] == [Rung.START]
        assert final_states(tmp_path, SIZE) == {expected}
        assert [(report.step, report.error) for report in w.checkpoints] == [(STEPS, "")]


def test_when_all_are_lost_it_begins_there_again(tmp_path: Path, expected: bytes) -> None:
    with begin(tmp_path, *[fault("vote.before", slot=slot, step=3) for slot in range(SIZE)]) as w:
        w.run()
        assert [record.rung for record in w.records] == [Rung.START, Rung.CHECKPOINT]
        assert final_states(tmp_path, SIZE) == {expected}
