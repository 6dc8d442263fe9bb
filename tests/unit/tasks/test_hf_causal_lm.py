"""Without it a model of transformers could train with wrong weights, or not come back as the folder it came from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.checkpoint.export import export_checkpoint
from trainctl.core.errors import CheckpointError, SpecError
from trainctl.core.records.train_spec import (
    BatchSpec,
    EvalSpec,
    ModelSpec,
    OptimizerSpec,
    ScheduleSpec,
    TokenizerSpec,
    TrainDataSpec,
    TrainSpec,
)
from trainctl.parallel.data.batch import packed_rows
from trainctl.parallel.loop import CPU, prepare
from trainctl.parallel.models.hf_causal_lm import build_model
from trainctl.parallel.models.hf_folder import open_folder
from trainctl.parallel.plan.learning_rate import learning_rate_schedule
from trainctl.parallel.tasks.hf_causal_lm import logits_of
from trainctl.parallel.tasks.next_token import NextTokenLoss
from unit.tasks.alone import train_alone
from unit.tasks.hf_folders import CONFIGS, load, logits, write_config, write_corpus, write_model

STEPS = 6


@pytest.fixture
def spec(tmp_path: Path) -> TrainSpec:
    return TrainSpec(
        task="hf_causal_lm",
        model=ModelSpec(path=str(tmp_path / "model"), context=24),
        data=TrainDataSpec(uri=write_corpus(tmp_path / "corpus"), hold_out_every=4),
        optimizer=OptimizerSpec(lr=1e-2, clip_norm=0.5),
        schedule=ScheduleSpec(warmup_steps=2),
        steps=STEPS,
        batch=BatchSpec(sequences=8, micro_batches=2),
        eval=EvalSpec(every=3, sequences=4),
        seed=3,
    )


def plain_losses(model: Any, spec: TrainSpec, batches: list[tuple[int, ...]], dataset: Any) -> list[float]:
    """A loop as anybody writes it with transformers: its own loss, torch's AdamW and clipping."""
    model.train()
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": 0.1}]
    groups += [{"params": vectors, "weight_decay": 0.0}] if vectors else []
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    schedule = learning_rate_schedule(spec.schedule, peak=spec.optimizer.lr, steps=spec.steps)
    losses = []
    for step, ids in enumerate(batches, start=1):
        batch = dataset.batch(ids)
        whole = torch.cat((batch.ids, batch.targets[:, -1:]), dim=1)  # transformers shifts the labels itself
        optimizer.zero_grad()
        loss = model(input_ids=whole, labels=whole, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = schedule(step)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3", "gemma", "mistral", "opt", "gpt_neox"])
def test_it_trains_as_a_plain_loop_does_and_comes_back_as_the_same_kind_of_folder(
    kind: str, spec: TrainSpec, tmp_path: Path
) -> None:
    write_model(tmp_path / "model", kind)
    batches: list[tuple[int, ...]] = []
    run = train_alone(spec, tmp_path / "run", interval=STEPS // 2, watch=batches.append)
    steps = [batches[i] + batches[i + 1] for i in range(0, len(batches), 2)]
    plain = load(tmp_path / "model")
    expected = plain_losses(plain, spec, steps, run.prepared.task.dataset)
    assert run.losses == pytest.approx(expected, rel=1e-5)
    assert run.losses[-1] < run.losses[0]
    assert run.figures[STEPS // 2 - 1].eval_loss is not None

    resumed = train_alone(spec, tmp_path / "again", resume=run.saved[0])
    assert resumed.losses == run.losses[STEPS // 2 :]
    assert all(torch.equal(value, resumed.state[name]) for name, value in run.state.items())

    export_checkpoint(run.saved[-1].uri, str(tmp_path / "export"))
    exported = load(tmp_path / "export")
    ours = run.prepared.task.model.eval()
    torch.testing.assert_close(logits(exported), logits(ours), rtol=0, atol=0)
    assert exported.config.model_type == kind
    tied = exported.get_output_embeddings().weight is exported.get_input_embeddings().weight
    assert tied == (kind in ("gpt2", "qwen3", "gemma", "opt"))
    for name, value in json.loads((tmp_path / "model" / "config.json").read_text()).items():
        if name not in ("dtype", "torch_dtype"):
            assert json.loads((tmp_path / "export" / "config.json").read_text())[name] == value


@pytest.mark.parametrize("kind", ["mixtral", "deepseek_v3"])
def test_experts_train_and_come_back_with_their_buffers(kind: str, spec: TrainSpec, tmp_path: Path) -> None:
    write_model(tmp_path / "model", kind)
    run = train_alone(spec, tmp_path / "run")
    export_checkpoint(run.saved[-1].uri, str(tmp_path / "export"))
    torch.testing.assert_close(logits(load(tmp_path / "export")), logits(run.prepared.task.model.eval()))


def test_without_weights_they_come_from_the_seed(spec: TrainSpec, tmp_path: Path) -> None:
    write_config(tmp_path / "model", "llama")
    states: list[dict[str, Any]] = []
    for seed, precision in ((3, "auto"), (3, "float64"), (4, "auto")):
        torch.manual_seed(99 + len(states))
        changed = replace(spec, seed=seed, precision=precision)
        states.append(prepare(changed, str(tmp_path / "cache"), CPU).task.model.state_dict())
    name = "model.layers.1.mlp.up_proj.weight"
    assert states[1][name].dtype is torch.float64
    assert torch.equal(states[0][name].double(), states[1][name])
    assert not torch.equal(states[0][name], states[2][name])


def test_weights_may_be_left_alone_or_demanded(spec: TrainSpec, tmp_path: Path) -> None:
    theirs = write_model(tmp_path / "model", "gpt2")
    for weights, equal in (("auto", True), ("load", True), ("random", False)):
        wanted = replace(spec, model=replace(spec.model, weights=weights))
        model = prepare(wanted, str(tmp_path / "cache"), CPU).task.model
        assert torch.equal(model.state_dict()["lm_head.weight"], theirs.lm_head.weight) == equal


def test_bfloat16_weights_in_shards_become_float32_masters(spec: TrainSpec, tmp_path: Path) -> None:
    theirs = write_model(tmp_path / "model", "llama", dtype=torch.bfloat16, max_shard_size="20KB")
    assert (tmp_path / "model" / "model.safetensors.index.json").exists()
    model = prepare(spec, str(tmp_path / "cache"), CPU).task.model
    for name, value in model.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name].float()), name


def test_overrides_replace_values_and_are_exported(spec: TrainSpec, tmp_path: Path) -> None:
    write_config(tmp_path / "model", "gpt2")
    wanted = replace(spec, model=replace(spec.model, overrides={"n_layer": 1, "vocab_size": 300}))
    task = prepare(wanted, str(tmp_path / "cache"), CPU).task
    config: Any = task.model.config
    assert config.n_layer == 1
    exported = json.loads(task.artifacts["config.json"])
    assert (exported["n_layer"], exported["vocab_size"], exported["tie_word_embeddings"]) == (1, 300, True)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind not in ("opt", "deepseek_v3")])
def test_a_packed_document_is_learned_as_if_it_were_alone(kind: str, tmp_path: Path) -> None:
    folder, _ = open_folder(ModelSpec(path=str(write_config(tmp_path, kind))))
    assert folder is not None
    exact = kind != "mixtral"  # torch's grouped matrix product knows no float64
    model = build_model(folder, {}, seed=1, dtype=torch.float64 if exact else torch.float32)
    loss = NextTokenLoss(logits_of(model.eval()), CPU, bfloat16=False)
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(256, (n,), generator=generator).numpy() for n in (7, 12, 3, 9)]
    together, count = loss(packed_rows([documents[:3], documents[3:]], context=24))
    alone = [loss(packed_rows([[document]], context=24)) for document in documents]
    assert count == sum(n for _, n in alone)
    torch.testing.assert_close(together, sum(part for part, _ in alone), rtol=1e-6 if exact else 1e-5, atol=0)


def problem(spec: TrainSpec, tmp_path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        prepare(spec, str(tmp_path / "cache"), CPU)
    return "\n".join(f"{p.path}: {p.message}" for p in caught.value.problems)


def test_a_name_of_the_hub_is_not_downloaded(spec: TrainSpec, tmp_path: Path) -> None:
    found = problem(replace(spec, model=replace(spec.model, path="openai-community/gpt2")), tmp_path)
    assert 'spec.train.model.path: expected the absolute path of a folder with config.json, found "openai-com' in found
    assert "hf download" in found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected config.json in"),
        ("{", "config.json: expected a JSON object, found: Expecting"),
        ("[]", "config.json: expected a JSON object, found list"),
        ("{}", "has no model_type"),
        ('{"model_type": "nova"}', 'knows no model_type "nova"'),
        ('{"model_type": "nova", "auto_map": {"AutoConfig": "a.B"}}', "it brings code of its own, which is not run"),
        ('{"model_type": "llama", "hidden_size": 30, "num_attention_heads": 4}', "llama"),
        ('{"model_type": "llama", "quantization_config": {}}', "is quantized"),
        ('{"model_type": "vit"}', "vit cannot be built"),
    ],
)
def test_folders_that_are_no_model(content: str | None, message: str, spec: TrainSpec, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    if content is not None:
        (tmp_path / "model" / "config.json").write_text(content)
    found = problem(spec, tmp_path)
    assert found.startswith("spec.train.model.")
    assert message in found


@pytest.mark.parametrize("content", ["[]", '{"model_type": "nova"}'])
def test_where_the_folder_is_wrong_the_hint_says_so(content: str, spec: TrainSpec, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(content)
    with pytest.raises(SpecError) as caught:
        prepare(spec, str(tmp_path / "cache"), CPU)
    assert "that folder" in caught.value.hint


def test_a_folder_that_may_not_be_entered_is_named(
    spec: TrainSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    found, problems = open_folder(replace(spec.model, path=str(tmp_path / "model")))
    monkeypatch.undo()
    assert found is None
    assert [p.message for p in problems] == [f"{tmp_path / 'model'} cannot be read: Permission denied"]


def test_a_model_that_looks_ahead_is_refused(spec: TrainSpec, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    shape = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 32}
    config = {"model_type": "bert", "vocab_size": 256, **shape}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    assert "bert is no causal language model" in problem(spec, tmp_path)


def test_pickles_are_not_read(spec: TrainSpec, tmp_path: Path) -> None:
    write_config(tmp_path / "model", "gpt2")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"\x80\x04")
    found = problem(spec, tmp_path)
    assert "pytorch_model.bin, a pickle" in found
    assert "save_pretrained" in found
    prepare(replace(spec, model=replace(spec.model, weights="random")), str(tmp_path / "cache"), CPU)


def test_missing_weights_and_shards_are_named(spec: TrainSpec, tmp_path: Path) -> None:
    write_config(tmp_path / "model", "gpt2")
    wanted = replace(spec, model=replace(spec.model, weights="load"))
    assert "expected model.safetensors or model.safetensors.index.json" in problem(wanted, tmp_path)
    index = tmp_path / "model" / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    assert "names one.safetensors, which is not there (2 missing)" in problem(spec, tmp_path)
    index.write_text('{"weight_map": {"a": "../one.safetensors"}}')
    assert "names a file outside of the folder" in problem(spec, tmp_path)


def test_weights_of_another_model_are_refused(spec: TrainSpec, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")
    deeper = replace(spec, model=replace(spec.model, overrides={"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match=r"model\.layers\.2\..*: not in the folder"):
        prepare(deeper, str(tmp_path / "cache"), CPU)
    wider = replace(spec, model=replace(spec.model, overrides={"intermediate_size": 64}))
    with pytest.raises(CheckpointError, match=r"mlp.*: expected shape \[64, 32\], found \[48, 32\]"):
        prepare(wider, str(tmp_path / "cache"), CPU)


def test_damaged_weights_are_said_to_be_so(spec: TrainSpec, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "gpt2")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        prepare(spec, str(tmp_path / "cache"), CPU)
    assert "fetch the folder again" in caught.value.hint


def test_what_does_not_fit_the_model(spec: TrainSpec, tmp_path: Path) -> None:
    write_config(tmp_path / "model", "opt")
    wrong = replace(spec, model=replace(spec.model, overrides={"ffn_dims": 3, "hidden": 4}))
    found = problem(wrong, tmp_path)
    assert 'spec.train.model.overrides.ffn_dims: opt has no such value (did you mean "ffn_dim"?)' in found
    assert "spec.train.model.overrides.hidden: opt has no such value" in found
    small = replace(spec, model=replace(spec.model, overrides={"vocab_size": 100}))
    assert "spec.train.tokenizer: its ids go up to 255, but the model's vocab_size is 100" in problem(small, tmp_path)
    bpe = replace(spec, tokenizer=TokenizerSpec(kind="bpe", vocab_size=280))
    assert "overrides: {vocab_size: 2" in problem(bpe, tmp_path)
    long = replace(spec, model=replace(spec.model, context=65))
    assert "spec.train.model.context: expected at most 64" in problem(long, tmp_path)
    packed = replace(spec, data=replace(spec.data, packing="documents"))
    assert "opt cannot keep documents of one row apart" in problem(packed, tmp_path)


def test_a_precision_that_the_model_has_not(spec: TrainSpec, tmp_path: Path) -> None:
    write_config(tmp_path / "model", "mixtral")
    found = problem(replace(spec, precision="float64"), tmp_path)
    assert "spec.train.precision: mixtral does not compute in torch.float64" in found


def test_shape_fields_of_the_built_in_decoder_are_refused(spec: TrainSpec, tmp_path: Path) -> None:
    found = problem(replace(spec, model=replace(spec.model, layers=2, dropout=0.1, path="")), tmp_path)
    assert "spec.train.model.layers: is for task llama" in found
    assert "spec.train.model.dropout: is for task llama" in found
    assert "spec.train.model.path: is required" in found
