"""Real kills: every kind of data is trained exactly as without them, and by every number of workers.

Without it a kill could skip or double samples with some format of data only.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiproc.armed_faults import fault
from multiproc.builtin import run_on_another_corpus, run_worker
from multiproc.threads import WorldError
from multiproc.world import ProcessWorld
from trainctl.core.records.spec import CheckpointSpec, JobSpec, ResourcesSpec
from trainctl.core.records.step import StepFigures
from trainctl.core.records.train_spec import (
    BatchSpec,
    CorruptSpec,
    DataSourceSpec,
    EvalSpec,
    ModelSpec,
    TokenizerSpec,
    TrainDataSpec,
    TrainSpec,
)
from unit.data.kinds import documents, write_corpus

pytestmark = pytest.mark.multiproc

STEPS, SEQUENCES = 10, 12
ONE_THREAD = ResourcesSpec(threads_per_worker=1)
KINDS: dict[str, dict[str, Any]] = {
    "jsonl-documents-streaming": {"kinds": ("jsonl",), "packing": "documents", "mode": "streaming"},
    "parquet-pad-cached": {"kinds": ("parquet",), "packing": "pad", "mode": "cached"},
    "tokens-stream-streaming": {"kinds": ("tokens",), "packing": "stream", "mode": "streaming"},
    "mixture-documents-streaming": {
        "kinds": ("jsonl.gz", "parquet", "text"),
        "packing": "documents",
        "mode": "streaming",
    },
    "mixture-stream-cached": {"kinds": ("text.gz", "jsonl"), "packing": "stream", "mode": "cached"},
}


@pytest.fixture(params=KINDS)
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> JobSpec:
    kind = KINDS[request.param]
    for name in kind["kinds"]:
        write_corpus(tmp_path / name, name, documents(random.Random(name), 60))
    sources = [DataSourceSpec(uri=str(tmp_path / name), weight=i + 1.0) for i, name in enumerate(kind["kinds"])]
    data = TrainDataSpec(packing=kind["packing"], mode=kind["mode"], hold_out_every=5)
    mixed = len(sources) > 1
    data = replace(data, sources=tuple(sources)) if mixed else replace(data, uri=sources[0].uri)
    train = TrainSpec(
        model=ModelSpec(layers=1, hidden=32, heads=2, context=24),
        data=data,
        tokenizer=TokenizerSpec(kind="bpe", vocab_size=280) if mixed else TokenizerSpec(),
        steps=STEPS,
        batch=BatchSpec(sequences=SEQUENCES, micro_batches=4),
        eval=EvalSpec(every=5, sequences=4),
    )
    return JobSpec(train=train, resources=ONE_THREAD, checkpoint=CheckpointSpec(interval_steps=4))


def _train(folder: Path, spec: JobSpec, size: int, *faults: dict[str, Any]) -> dict[int, StepFigures]:
    """Figures by step; of a step that was done again after a roll-back, the newer ones."""
    folder.mkdir()
    with ProcessWorld(folder, size, run_worker, spec=spec, faults=faults) as world:
        world.run()
        return {figure.step: figure for figure in world.figure_log}


def _trained(figures: dict[int, StepFigures]) -> dict[int, tuple[Any, ...]]:
    return {f.step: (f.cursor, f.sample_digest, f.tokens, f.loss, f.eval_loss) for f in figures.values()}


def test_kills_change_no_sample_and_no_loss(spec: JobSpec, tmp_path: Path) -> None:
    undisturbed = _train(tmp_path / "undisturbed", spec, 3)
    assert sorted(undisturbed) == list(range(1, STEPS + 1))
    assert len({figure.sample_digest for figure in undisturbed.values()}) == STEPS
    kills = [
        fault("step.compute", slot=1, step=3),
        fault("vote.in", slot=0, step=6),
        *(fault("step.reduce", slot=slot, step=9) for slot in range(3)),
    ]
    killed = _train(tmp_path / "killed", spec, 3, *kills)
    assert _trained(killed) == _trained(undisturbed)


def test_one_to_four_workers_train_the_same_samples(spec: JobSpec, tmp_path: Path) -> None:
    alone, *more = [_train(tmp_path / f"of-{size}", spec, size) for size in (1, 2, 4)]
    for figures in more:
        for step, figure in figures.items():
            same = alone[step]
            assert (figure.cursor, figure.sample_digest, figure.tokens) == (
                same.cursor,
                same.sample_digest,
                same.tokens,
            )
            assert figure.loss == pytest.approx(same.loss, rel=1e-4)


def test_a_broken_sample_fails_the_worker_with_where_it_is(tmp_path: Path) -> None:
    write_corpus(tmp_path / "jsonl", "jsonl", documents(random.Random(0), 60))
    (tmp_path / "jsonl" / "2.jsonl").write_text('{"text": "good"}\n{"text": \n')
    data = TrainDataSpec(uri=str(tmp_path / "jsonl"), mode="streaming", hold_out_every=5)
    train = TrainSpec(model=ModelSpec(layers=1, hidden=32, heads=2, context=24), data=data, steps=2)
    with ProcessWorld(tmp_path, 1, run_worker, spec=JobSpec(train=train, resources=ONE_THREAD)) as world:
        with pytest.raises(WorldError, match="raised DataError"):
            world.run()
        error = world.lives[0].error
        assert error is not None
        assert error.code == "DATA_UNUSABLE"
        assert "2.jsonl, line 2, byte 17: no JSON" in error.message


def test_skipped_records_are_noticed_once_for_all_workers(tmp_path: Path) -> None:
    write_corpus(tmp_path / "jsonl", "jsonl", documents(random.Random(0), 60))
    (tmp_path / "jsonl" / "2.jsonl").write_text('{"text": \n')
    corrupt = CorruptSpec(policy="skip", max_records=1)
    data = TrainDataSpec(uri=str(tmp_path / "jsonl"), corrupt=corrupt, hold_out_every=5)
    train = TrainSpec(model=ModelSpec(layers=1, hidden=32, heads=2, context=24), data=data, steps=2)
    with ProcessWorld(tmp_path, 2, run_worker, spec=JobSpec(train=train, resources=ONE_THREAD)) as world:
        world.run()
        assert len(world.notices) == 2
        (notice,) = set(world.notices)
    assert notice.startswith("1 corrupt record skipped (digest ")
    assert "2.jsonl, line 1, byte 0: no JSON" in notice


def test_nodes_with_different_files_do_not_even_start(tmp_path: Path) -> None:
    """The second worker sees another file: it would train on other samples under the same numbers."""
    write_corpus(tmp_path / "corpus", "jsonl", documents(random.Random(0), 60))
    data = TrainDataSpec(uri=str(tmp_path / "corpus"), hold_out_every=5, mode="streaming")
    train = TrainSpec(model=ModelSpec(layers=1, hidden=32, heads=2, context=24), data=data, steps=2)
    spec = JobSpec(train=train, resources=ONE_THREAD)
    with ProcessWorld(tmp_path, 2, run_on_another_corpus, spec=spec) as world:
        with pytest.raises(
            WorldError, match="worker 1 raised DataError: expected the data that the run was started with"
        ):
            world.run()
        error = world.lives[1].error
        assert error is not None
        assert error.code == "DATA_UNUSABLE"
        assert not world.figure_log
