"""Without it a job with a model or checkpoint that cannot fit would be taken in and fail on its nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainctl.checkpoint.library import save as save_from_a_script
from trainctl.controller.domain.spec import effective, parse_job
from trainctl.controller.domain.view import ClusterView
from trainctl.controller.jobs.checks import check_outside
from trainctl.controller.jobs.preview import preview
from trainctl.core.errors import SpecError
from trainctl.core.records.spec import TrainJob
from unit.checkpoint.ranks import key, save
from unit.tasks.hf_folders import write_config


def job(train: dict[str, Any], **spec: Any) -> TrainJob:
    body = {"metadata": {"name": "a"}, "spec": {"train": {"steps": 9, **train}, **spec}}
    return effective(parse_job(json.dumps(body), source="job"))


def problems(wanted: TrainJob) -> dict[str, str]:
    try:
        check_outside(wanted)
    except SpecError as error:
        return {problem.path.removeprefix("spec.train.model."): problem.message for problem in error.problems}
    return {}


def test_the_folder_is_looked_at_when_a_job_is_submitted(tmp_path: Path) -> None:
    gpt2, llama = write_config(tmp_path / "gpt2", "gpt2"), write_config(tmp_path / "llama", "llama")
    assert problems(job({"task": "hf_causal_lm", "model": {"path": str(gpt2)}})) == {}
    found = problems(job({"task": "hf_causal_lm", "model": {"path": "gpt2"}}))
    assert 'found "gpt2"; nothing is downloaded' in found["path"]
    assert "does not exist on this machine" in problems(job({"model": {"path": str(tmp_path / "no")}}))["path"]
    found = problems(job({"task": "hf_causal_lm", "model": {"path": str(gpt2), "weights": "load"}}))
    assert "expected model.safetensors" in found["path"]
    shape = {"layers": 2, "hidden": 32, "heads": 4, "kvHeads": 2, "ffn": 48, "tieEmbeddings": False}
    assert problems(job({"model": {**shape, "path": str(llama)}})) == {}
    found = problems(job({"model": {**shape, "layers": 3, "path": str(llama)}}))
    assert found == {"layers": "expected 2, as in num_hidden_layers of model.path's config.json, found 3"}
    assert 'found "gpt2"; task: hf_causal_lm' in problems(job({"model": {"path": str(gpt2)}}))["path"]


def test_a_checkpoint_is_compared_for_the_built_in_decoder_only(tmp_path: Path) -> None:
    config = json.dumps({"hidden_size": 77, "rms_norm_eps": 1e-5}).encode()
    save(tmp_path / "c", {key("w"): torch.ones(4)}, artifacts={"config.json": config})
    resume = {"uri": str(tmp_path / "c"), "resumeFrom": "latest"}
    assert set(problems(job({}, checkpoint=resume))) == {"hidden", "normEps"}
    folder = write_config(tmp_path / "gpt2", "gpt2")
    assert problems(job({"task": "hf_causal_lm", "model": {"path": str(folder)}}, checkpoint=resume)) == {}


def test_no_job_goes_on_from_what_a_script_saved_whatever_its_model(tmp_path: Path) -> None:
    ref = save_from_a_script(tmp_path / "c", model=torch.nn.Linear(2, 2), step=3)
    for wanted in (
        job({}, checkpoint={"resumeFrom": str(tmp_path / "c")}),
        job({"task": "my.pkg:build"}, checkpoint={"uri": str(tmp_path / "c"), "resumeFrom": "latest"}),
    ):
        found = problems(wanted)
        assert f"{ref.uri} was saved by a script" in found["spec.checkpoint.resumeFrom"]
        assert "trainctl checkpoints export" in found["spec.checkpoint.resumeFrom"]


@pytest.mark.parametrize(
    ("train", "unchecked"),
    [
        ({}, []),
        ({"task": "my.pkg:build"}, ["my.pkg:build, code of your own"]),
        ({"optimizer": {"name": "my.pkg:Opt"}}, ["my.pkg:Opt, code of your own"]),
        ({"task": "hf_causal_lm", "model": {"path": "/m"}}, ["whether transformers can build the model"]),
        ({"compile": True}, ["whether torch.compile takes the model"]),
    ],
)
def test_a_dry_run_says_what_it_cannot_check(train: dict[str, Any], unchecked: list[str]) -> None:
    lines = preview(job(train), ClusterView(), {}, workdir="/jobs/a", resume=None)
    begin = "not checked here, but in the workers before the first step: "
    assert [line.removeprefix(begin) for line in lines if line.startswith(begin)] == unchecked
    assert any("parameters" in line for line in lines) == (train.get("task") is None)
