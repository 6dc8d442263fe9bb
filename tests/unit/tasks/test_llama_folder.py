"""Without it weights of a folder could be loaded into a decoder that computes something else with them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainctl.checkpoint.export import export_checkpoint
from trainctl.core.errors import CheckpointError, PlanError, SpecError
from trainctl.core.records.train_spec import EvalSpec, ModelSpec, TokenizerSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.data.batch import whole_rows
from trainctl.parallel.loop import CPU, prepare
from trainctl.parallel.plan.llama_folder import llama_folder_problems
from unit.tasks.alone import train_alone
from unit.tasks.hf_folders import CONFIGS, load, logits, write_config, write_corpus, write_model

SHAPE = ModelSpec(layers=2, hidden=32, heads=4, kv_heads=2, ffn=48, context=24, tie_embeddings=False)


@pytest.fixture
def spec(tmp_path: Path) -> TrainSpec:
    return TrainSpec(
        model=replace(SHAPE, path=str(tmp_path / "model")),
        data=TrainDataSpec(uri=write_corpus(tmp_path / "corpus"), hold_out_every=4),
        eval=EvalSpec(every=0),
        steps=4,
    )


def ours(model: torch.nn.Module) -> torch.Tensor:
    ids = (torch.arange(26).reshape(2, 13) % 256).numpy()
    batch = whole_rows(ids)
    with torch.no_grad():
        found: torch.Tensor = model.eval()(batch.ids)
    return found


def theirs(model: Any) -> torch.Tensor:
    ids = torch.arange(26).reshape(2, 13)[:, :-1]
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


@pytest.mark.parametrize("tied", [False, True])
def test_a_folders_weights_are_continued_and_come_back(tied: bool, spec: TrainSpec, tmp_path: Path) -> None:
    write_config(tmp_path / "plain", "llama", tie_word_embeddings=tied, rms_norm_eps=1e-5)
    config = json.loads((tmp_path / "plain" / "config.json").read_text())
    from transformers import AutoConfig, AutoModelForCausalLM

    make: Any = AutoModelForCausalLM
    torch.manual_seed(4)
    model = make.from_config(AutoConfig.for_model(**config)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(tmp_path / "model", max_shard_size="20KB")
    wanted = replace(spec, model=replace(spec.model, tie_embeddings=tied, norm_eps=1e-5, weights="load"))
    begun = prepare(wanted, str(tmp_path / "cache"), CPU).task.model
    torch.testing.assert_close(ours(begun), theirs(model), rtol=1e-5, atol=1e-5)
    run = train_alone(wanted, tmp_path / "run")
    export_checkpoint(run.saved[-1].uri, str(tmp_path / "export"))
    exported = load(tmp_path / "export")
    torch.testing.assert_close(theirs(exported), ours(run.prepared.task.model), rtol=1e-5, atol=1e-5)
    assert not torch.equal(logits(exported), logits(model))
    assert exported.config.rms_norm_eps == 1e-5


def test_the_vocabulary_is_that_of_the_weights(spec: TrainSpec, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")
    small = replace(spec, tokenizer=TokenizerSpec(kind="bpe", vocab_size=300))
    with pytest.raises(SpecError, match=r"spec.train.tokenizer: its ids go up to 2\d\d, but vocab_size .* is 256"):
        prepare(small, str(tmp_path / "cache"), CPU)
    random = replace(small, model=replace(small.model, weights="random"))
    assert prepare(random, str(tmp_path / "cache"), CPU).task.model.state_dict()["lm_head.weight"].shape[0] > 256


def test_every_difference_of_shape_is_named() -> None:
    wrong = replace(SHAPE, layers=3, heads=8, tie_embeddings=True, norm_eps=1e-5, rope_theta=5.0)
    found = {
        p.path.removeprefix("spec.train.model."): p.message for p in llama_folder_problems(CONFIGS["llama"], wrong)
    }
    assert set(found) == {"layers", "heads", "tieEmbeddings", "normEps", "ropeTheta"}
    assert found["layers"] == "expected 2, as in num_hidden_layers of model.path's config.json, found 3"
    assert llama_folder_problems(CONFIGS["llama"], SHAPE) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "qwen2"}, 'expected a model of type llama, found "qwen2"; task: hf_causal_lm trains it'),
        ({"rope_scaling": {"rope_type": "llama3"}}, 'plain rotary positions only, its config.json says "llama3"'),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0}}, 'its config.json says "yarn"'),
        ({"attention_bias": True}, "computes with attention_bias False"),
        ({"head_dim": 16}, "says head_dim 16"),
        ({"hidden_act": "gelu"}, "hidden_act silu, its config.json says gelu"),
    ],
)
def test_what_the_built_in_decoder_does_not_compute_is_refused(changes: dict[str, Any], message: str) -> None:
    (found,) = llama_folder_problems({**CONFIGS["llama"], **changes}, SHAPE)
    assert message in found.message


def test_weights_that_are_not_those_of_the_config(spec: TrainSpec, tmp_path: Path) -> None:
    write_model(tmp_path / "model", "llama")
    file = tmp_path / "model" / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = torch.ones(31)
    tensors["stranger"] = torch.ones(1)
    del tensors["lm_head.weight"]
    save_file(tensors, file)
    with pytest.raises(PlanError) as caught:
        prepare(spec, str(tmp_path / "cache"), CPU)
    text = str(caught.value)
    assert "model.norm.weight: expected shape [32], found [31]" in text
    assert "stranger: in the folder, but not in the model" in text
    assert "lm_head.weight: not in the folder" in text
    file.write_bytes(b"\x10" * 20)
    with pytest.raises(CheckpointError, match=r"model.safetensors: expected a safetensors file"):
        prepare(spec, str(tmp_path / "cache"), CPU)
