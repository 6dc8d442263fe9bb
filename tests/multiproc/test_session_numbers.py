from __future__ import annotations

from pathlib import Path

import pytest

from multiproc.toy import final_states, train
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import CheckpointSpec, JobSpec

pytestmark = pytest.mark.multiproc
SPEC = JobSpec(checkpoint=CheckpointSpec(interval_steps=0))


def losses(folder: Path, size: int, dtype: str) -> list[float]:
    folder.mkdir()
    options = {"steps": 100, "dtype": dtype, "evaluate_every": 25, "seed": 3}
    with ProcessWorld(folder, size, train, options=options, spec=SPEC) as w:
        w.run()
        assert len(final_states(folder, size)) == 1
        assert [f.step for f in w.figure_log] == list(range(1, 101))
        evaluated = [f.eval_loss for f in w.figure_log if f.eval_loss is not None]
        assert len(evaluated) == 4
        return [f.loss for f in w.figure_log] + evaluated


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_losses_do_not_depend_on_the_number_of_workers(tmp_path: Path, dtype: str, tolerance: float) -> None:
    alone = losses(tmp_path / "1", 1, dtype)
    assert alone[99] < alone[0]
    for size in (2, 3, 4):
        together = losses(tmp_path / str(size), size, dtype)
        assert max(abs(a - b) / abs(a) for a, b in zip(alone, together, strict=True)) <= tolerance
