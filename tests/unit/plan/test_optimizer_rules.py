"""What a job file may say of its optimizer, without making one.

Without it a setting that means nothing to an optimizer, or hides another, would be taken without a word.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from trainctl.core.records.train_spec import OptimizerSpec
from trainctl.parallel.plan.optimizer_rules import ADAM_FAMILY, REFUSED, TORCH_OPTIMIZERS, optimizer_problems

DEFAULT = OptimizerSpec()
OTHERS = sorted(set(TORCH_OPTIMIZERS) - ADAM_FAMILY)


def found(spec: OptimizerSpec) -> dict[str, str]:
    return {p.path.removeprefix("spec.train.optimizer."): p.message for p in optimizer_problems(spec)}


@pytest.mark.parametrize("name", [*TORCH_OPTIMIZERS, "my_pkg.optim:Mine"])
def test_every_optimizer_goes_with_the_defaults(name: str) -> None:
    assert found(replace(DEFAULT, name=name)) == {}


@pytest.mark.parametrize("name", sorted(ADAM_FAMILY))
def test_the_adam_family_takes_betas_and_eps(name: str) -> None:
    assert found(replace(DEFAULT, name=name, betas=(0.5, 0.6), eps=1e-3)) == {}


@pytest.mark.parametrize("name", OTHERS)
def test_others_have_neither_betas_nor_eps(name: str) -> None:
    assert found(replace(DEFAULT, name=name, betas=(0.5, 0.6))) == {"betas": f"{name} has none; leave it out"}
    assert "write it into spec.train.optimizer.options" in found(replace(DEFAULT, name=name, eps=1e-3))["eps"]


def test_only_rprop_has_no_weight_decay() -> None:
    said = {name for name in TORCH_OPTIMIZERS if "weightDecay" in found(replace(DEFAULT, name=name, weight_decay=0.3))}
    assert said == {"rprop"}
    assert found(replace(DEFAULT, name="rprop", weight_decay=0.0)) == {}


@pytest.mark.parametrize(("option", "field"), [("lr", "lr"), ("betas", "betas"), ("weight_decay", "weightDecay")])
def test_an_option_with_a_field_of_its_own_belongs_there(option: str, field: str) -> None:
    said = found(replace(DEFAULT, name="sgd", options={option: 1}))
    assert said == {f"options.{option}": f"has a field of its own: spec.train.optimizer.{field}"}


def test_eps_is_an_option_but_of_the_adam_family() -> None:
    assert found(replace(DEFAULT, name="rmsprop", options={"eps": 1e-3})) == {}
    assert "has a field of its own" in found(replace(DEFAULT, name="adamw", options={"eps": 1e-3}))["options.eps"]


def test_parameters_are_the_models() -> None:
    assert "is what the model says" in found(replace(DEFAULT, options={"params": []}))["options.params"]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_carried_out_is_refused_with_its_reason(name: str) -> None:
    assert found(replace(DEFAULT, name=name)) == {"name": f"{name} is not supported: {REFUSED[name]}"}


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    said = found(replace(DEFAULT, name="adammw" + "x" * 100))["name"]
    assert "adamw" in said
    assert len(said) < 400
