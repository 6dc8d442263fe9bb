"""Without it settings that do not go together would be accepted, and fail on the workers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trainctl.controller.domain.spec import effective, job_from_wire, parse_job, validate
from trainctl.core.codec import to_wire
from trainctl.core.errors import SpecError
from trainctl.core.records.train_spec import ModelSpec, TrainSpec
from trainctl.core.timeouts import COMPILE_FACTOR, PROFILES, Timeouts
from trainctl.parallel.plan.task_rules import task_problems

HF = TrainSpec(task="hf_causal_lm", model=ModelSpec(path="/models/one"))
OWN = TrainSpec(task="my_pkg.tasks:build", options={"width": 3})


def found(train: TrainSpec) -> dict[str, str]:
    return {problem.path.removeprefix("spec.train."): problem.message for problem in task_problems(train)}


@pytest.mark.parametrize("train", [TrainSpec(), HF, OWN, replace(TrainSpec(), model=ModelSpec(path="/models/one"))])
def test_what_goes_together(train: TrainSpec) -> None:
    assert found(train) == {}


@pytest.mark.parametrize(
    ("train", "path", "part"),
    [
        (replace(OWN, task="my_pkg.build"), "task", "llama, hf_causal_lm or module:callable"),
        (replace(OWN, task="my pkg:build"), "task", "llama, hf_causal_lm or module:callable"),
        (replace(HF, options={"a": 1}), "options", "for a task of your own"),
        (replace(HF, model=ModelSpec()), "model.path", "is required by task hf_causal_lm"),
        (replace(HF, model=ModelSpec(path="/m", weights="all")), "model.weights", "auto or load or random"),
        (TrainSpec(model=ModelSpec(weights="load")), "model.weights", "load needs model.path"),
        (TrainSpec(model=ModelSpec(overrides={"a": 1})), "model.overrides", "are for task hf_causal_lm"),
        (replace(HF, model=ModelSpec(path="/m", hidden=3)), "model.hidden", "is for task llama"),
        (replace(HF, model=ModelSpec(path="/m", norm_eps=0.1)), "model.normEps", "or model.overrides"),
        (replace(OWN, model=ModelSpec(context=0)), "model.context", "expected at least 1, found 0"),
        (TrainSpec(model=ModelSpec(norm_eps=0.0)), "model.normEps", "greater than 0"),
    ],
)
def test_what_does_not(train: TrainSpec, path: str, part: str) -> None:
    assert part in found(train)[path]


def test_all_at_once() -> None:
    wrong = replace(HF, options={"a": 1}, model=ModelSpec(layers=9, weights="none", context=0))
    assert sorted(found(wrong)) == ["model.context", "model.layers", "model.path", "model.weights", "options"]


def job(train: str) -> str:
    return f"metadata: {{name: a}}\nspec:\n  train:\n    steps: 3\n{train}"


def test_problems_stand_where_they_were_written() -> None:
    text = job("    task: hf_causal_lm\n    model: {hidden: 3}\n    optimizer: {name: adamx}\n")
    with pytest.raises(SpecError) as caught:
        parse_job(text, source="job.yaml")
    lines = {p.path: p.line for p in caught.value.problems}
    assert lines == {
        "spec.train.model.path": 6,
        "spec.train.model.hidden": 6,
        "spec.train.optimizer.name": 7,
    }


def test_free_values_and_defaults_survive_the_wire() -> None:
    values: dict[str, Any] = {"a": 1, "b": 0.5, "c": ["x", True, None], "d": {"e": 2}}
    text = job(
        "    task: my.pkg:build\n    options: {a: 1, b: 0.5, c: [x, true, null], d: {e: 2}}\n"
        "    optimizer: {name: 'my.pkg:Optimizer', options: {momentum: 0.9}}\n    compile: true\n"
    )
    parsed = parse_job(text, source="job.yaml")
    assert parsed.spec.train.options == values
    whole = effective(parsed)
    assert whole.spec.train.model == ModelSpec(), "only the built-in decoder has a shape to resolve"
    assert job_from_wire(to_wire(whole)) == whole
    assert validate(whole) == ()


def test_a_compiled_model_may_take_longer_to_boot() -> None:
    for profile in PROFILES:
        text = job("    compile: true\n") + f"  recovery: {{profile: {profile}}}\n"
        compiled, plain = Timeouts.for_job(parse_job(text, source="j")), PROFILES[profile]
        assert compiled.boot_s == COMPILE_FACTOR * plain.boot_s
        assert compiled.orphan_s > compiled.boot_s
