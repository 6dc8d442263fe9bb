"""Without it losses could depend on how a batch is cut, and artifacts be no folder that transformers loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from trainctl.core.errors import DataError, SpecError
from trainctl.core.records.train_spec import EvalSpec, ModelSpec, OptimizerSpec, TokenizerSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.tasks.data_identity import DataIdentity
from trainctl.parallel.tasks.evaluation import Evaluation
from trainctl.parallel.tasks.llama import LlamaTask
from trainctl.parallel.tasks.registry import check, find_task
from trainctl.parallel.tasks.task import TaskContext, TaskParts

CPU = torch.device("cpu")


@pytest.fixture
def spec(tmp_path: Path) -> TrainSpec:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(4):
        (folder / f"{index}.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 20)
    return TrainSpec(
        model=ModelSpec(layers=1, hidden=32, heads=4, context=32),
        data=TrainDataSpec(uri=str(folder), hold_out_every=4),
        eval=EvalSpec(every=2, sequences=10),
    )


def _build(spec: TrainSpec, tmp_path: Path) -> TaskParts:
    return LlamaTask().build(TaskContext(spec=spec, device=CPU, cache_dir=tmp_path / "cache"))


def test_the_loss_is_the_sum_over_targets(spec: TrainSpec, tmp_path: Path) -> None:
    task = _build(spec, tmp_path)
    batch = task.dataset.batch((0, 3, 5))
    loss_sum, tokens = task.loss(batch)
    logits = task.model(batch.ids).log_softmax(-1)
    expected = -logits.gather(-1, batch.targets[..., None]).sum()
    assert tokens == 3 * 32
    torch.testing.assert_close(loss_sum, expected)
    parts = [task.loss(task.dataset.batch((i,))) for i in (0, 3, 5)]
    torch.testing.assert_close(sum(part[0] for part in parts), loss_sum)
    assert loss_sum.requires_grad


def test_float64_stays_float64(spec: TrainSpec, tmp_path: Path) -> None:
    task = _build(replace(spec, precision="float64"), tmp_path)
    assert task.loss(task.dataset.batch((0,)))[0].dtype is torch.float64


@pytest.mark.parametrize("tokenizer", [TokenizerSpec(), TokenizerSpec(kind="bpe", vocab_size=270)])
def test_weights_and_artifacts_are_a_folder_that_transformers_loads(
    spec: TrainSpec, tokenizer: TokenizerSpec, tmp_path: Path
) -> None:
    task = _build(replace(spec, tokenizer=tokenizer), tmp_path)
    folder = tmp_path / "export"
    folder.mkdir()
    for name, content in task.artifacts.items():
        (folder / name).write_bytes(content)
    torch.save(dict(task.model.named_parameters()), folder / "pytorch_model.bin")
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids = AutoTokenizer.from_pretrained(folder)("the quick", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, task.model(ids), rtol=1e-5, atol=1e-5)
    assert theirs.generate(ids, max_new_tokens=5, do_sample=False).shape == (1, ids.shape[1] + 5)


def test_config_names_no_special_tokens(spec: TrainSpec, tmp_path: Path) -> None:
    config = json.loads(_build(spec, tmp_path).artifacts["config.json"])
    assert config["vocab_size"] == 256
    assert config["eos_token_id"] is None


def test_evaluation_items_add_up_whatever_their_size(spec: TrainSpec, tmp_path: Path) -> None:
    task = _build(spec, tmp_path)
    assert task.eval_dataset is not None
    totals = []
    for item_samples in (1, 3, 100):
        evaluate = Evaluation(spec.eval, task.model, task.eval_dataset, task.loss, item_samples=item_samples)
        results = [evaluate(item) for item in range(evaluate.num_items)]
        totals.append((sum(float(loss) for loss, _ in results), sum(tokens for _, tokens in results)))
        assert not results[0][0].requires_grad
    assert totals[0][1] == totals[1][1] == totals[2][1] == 10 * 32
    assert totals[0][0] == pytest.approx(totals[1][0], rel=1e-5)
    assert totals[0][0] == pytest.approx(totals[2][0], rel=1e-5)
    assert task.model.training


def test_nothing_held_out_is_fine_without_evaluation(spec: TrainSpec, tmp_path: Path) -> None:
    whole = replace(spec, data=replace(spec.data, hold_out_every=0))
    with pytest.raises(DataError, match=r"at least 33 tokens .* in the held-out text, found 0"):
        _build(whole, tmp_path)
    assert _build(replace(whole, eval=EvalSpec(every=0)), tmp_path).eval_dataset is None


def test_all_problems_of_a_spec_are_found_at_once(spec: TrainSpec) -> None:
    check(spec)
    wrong = replace(
        spec,
        model=ModelSpec(hidden=30, heads=4),
        tokenizer=TokenizerSpec(kind="words"),
        precision="int8",
        optimizer=OptimizerSpec(name="sdg"),
    )
    with pytest.raises(SpecError) as caught:
        check(wrong)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.train.model.hidden",
        "spec.train.tokenizer.kind",
        "spec.train.precision",
        "spec.train.optimizer.name",
    ]


def test_an_unknown_task_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match='expected llama, hf_causal_lm or module:callable, found "lama"'):
        find_task("lama")


def test_other_data_is_refused_on_load() -> None:
    mine = DataIdentity("a" * 8, uri="/data")
    mine.load_state_dict(mine.state_dict())
    with pytest.raises(DataError, match="found /data with digest aaaaaaaa on this node"):
        mine.load_state_dict({"digest": "b" * 8})
