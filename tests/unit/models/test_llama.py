"""Without it the built-in decoder could compute something else than what transformers does after an export."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from trainctl.core.errors import SpecError
from trainctl.core.records.train_spec import ModelSpec
from trainctl.parallel.models.generate import generate
from trainctl.parallel.models.llama import Llama, hf_config
from trainctl.parallel.plan.model_size import llama_parameters

TINY = ModelSpec(layers=2, hidden=32, heads=4, context=16)
SHAPES = [
    TINY,
    ModelSpec(layers=2, hidden=48, heads=6, kv_heads=2, context=16, tie_embeddings=False),
    ModelSpec(layers=1, hidden=32, heads=2, kv_heads=1, ffn=40, context=16, rope_theta=500.0),
]


def _ids(vocab_size: int = 256, batch: int = 3, length: int = 16) -> torch.Tensor:
    return torch.randint(vocab_size, (batch, length), generator=torch.Generator().manual_seed(1))


def _stir(model: Llama) -> None:
    """Moves norm weights away from one, so that a wrong place of a norm would show."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty(parameter.shape).normal_(generator=generator), alpha=0.1)


@pytest.mark.parametrize("shape", SHAPES)
def test_transformers_computes_the_same_logits(shape: ModelSpec) -> None:
    ours = Llama(shape, vocab_size=256, seed=3)
    _stir(ours)
    theirs = LlamaForCausalLM(LlamaConfig(**hf_config(shape, 256)))
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        torch.testing.assert_close(theirs(_ids()).logits, ours(_ids()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_are_counted_without_torch(shape: ModelSpec) -> None:
    model = Llama(shape, vocab_size=300, seed=0)
    assert llama_parameters(shape, 300) == sum(parameter.numel() for parameter in model.parameters())


def test_initial_weights_are_a_function_of_seed_and_name() -> None:
    first, again = Llama(TINY, vocab_size=256, seed=3), Llama(TINY, vocab_size=256, seed=3)
    other = Llama(TINY, vocab_size=256, seed=4)
    deeper = Llama(ModelSpec(layers=3, hidden=32, heads=4, context=16), vocab_size=256, seed=3)
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(first.state_dict()[name], again.state_dict()[name])
    assert torch.equal(first.state_dict()[name], deeper.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], other.state_dict()[name])
    assert not torch.equal(first.state_dict()[name], first.state_dict()["model.layers.0.mlp.up_proj.weight"])


def test_float64_starts_from_the_same_weights() -> None:
    single = Llama(TINY, vocab_size=256, seed=3)
    double = Llama(TINY, vocab_size=256, seed=3, dtype=torch.float64)
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a.double(), b)
    assert double(_ids()).dtype is torch.float64
    torch.testing.assert_close(double(_ids()).float(), single(_ids()), rtol=1e-4, atol=1e-5)


def test_output_projections_start_smaller() -> None:
    model = Llama(ModelSpec(layers=8, hidden=256, heads=4, context=16), vocab_size=256, seed=0)
    state = model.state_dict()
    assert state["model.layers.0.mlp.up_proj.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert state["model.layers.0.mlp.down_proj.weight"].std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert state["model.norm.weight"].eq(1).all()


def test_a_position_sees_only_the_past() -> None:
    model = Llama(TINY, vocab_size=256, seed=3)
    ids = _ids(batch=1)
    changed = ids.clone()
    changed[0, 10] = (changed[0, 10] + 1) % 256
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_dropout_follows_the_default_generator_and_is_off_in_eval() -> None:
    model = Llama(ModelSpec(layers=2, hidden=32, heads=4, context=16, dropout=0.5), vocab_size=256, seed=3)
    outputs = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        outputs.append(model(_ids()))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert torch.equal(model.eval()(_ids()), model(_ids()))


def test_generate_repeats_itself_with_the_same_seed() -> None:
    model = Llama(TINY, vocab_size=256, seed=3)
    start = torch.tensor([1, 2, 3])
    text = generate(model, start, 20, temperature=1.0, seed=1)
    assert text.shape == (23,)
    assert torch.equal(text[:3], start)
    assert torch.equal(text, generate(model, start, 20, temperature=1.0, seed=1))
    assert not torch.equal(text, generate(model, start, 20, temperature=1.0, seed=2))
    assert torch.equal(generate(model, start, 5, temperature=0.0), generate(model, start, 5, temperature=0.0, seed=9))
    assert model.training


def test_impossible_shapes_are_refused_with_all_problems() -> None:
    with pytest.raises(SpecError) as caught:
        Llama(ModelSpec(layers=0, hidden=30, heads=4, kv_heads=3), vocab_size=256, seed=0)
    assert [problem.path for problem in caught.value.problems] == [
        "spec.train.model.layers",
        "spec.train.model.hidden",
        "spec.train.model.kvHeads",
    ]
    with pytest.raises(SpecError, match=r"has .* parameters; expected at most 1e\+13"):
        Llama(ModelSpec(layers=1_000_000, hidden=65536, heads=64), vocab_size=256, seed=0)
