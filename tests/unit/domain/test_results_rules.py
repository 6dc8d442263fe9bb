"""Without it a job with an unusable hook or results folder would be found out after it had trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.cli.job_file.paths import with_absolute_paths
from trainctl.controller.domain.spec import parse_job
from trainctl.controller.jobs.checks import check_outside
from trainctl.core.errors import SpecError
from trainctl.core.records.places import records_uri
from trainctl.core.records.spec import ResultsSpec

HEAD = "apiVersion: trainctl.dev/v1\nkind: TrainJob\nmetadata: {name: a}\nspec:\n"


def problems(results: str) -> dict[str, str]:
    with pytest.raises(SpecError) as caught:
        parse_job(f"{HEAD}  results: {results}\n", source="job.yaml")
    assert all(problem.line == 5 for problem in caught.value.problems)
    return {problem.path: problem.message for problem in caught.value.problems}


def test_hooks_and_modes_are_checked_at_submit() -> None:
    found = problems("{hooks: ['a.b:C', 'nonsense', 'a:', ':b', 'a b:C', '1a:B'], wandb: {project: p, mode: cloud}}")
    assert set(found) == {"spec.results.wandb.mode", *(f"spec.results.hooks[{index}]" for index in range(1, 6))}
    assert "expected module:Class" in found["spec.results.hooks[1]"]
    assert "expected offline or online" in found["spec.results.wandb.mode"]


def test_a_results_folder_is_made_absolute_and_looked_at(tmp_path: Path) -> None:
    job = parse_job(f"{HEAD}  results: {{uri: runs}}\n", source="job.yaml")
    assert with_absolute_paths(job, here=tmp_path).spec.results.uri == str(tmp_path / "runs")
    (tmp_path / "file").write_text("")
    for uri, words in (("runs", "absolute path"), (f"{tmp_path}/file/x", "not a folder"), ("nosuch://b", "nosuch")):
        job = parse_job(f"{HEAD}  results: {{uri: '{uri}'}}\n", source="job.yaml")
        with pytest.raises(SpecError) as caught:
            check_outside(job)
        (problem,) = caught.value.problems
        assert problem.path == "spec.results.uri"
        assert words in problem.message


def test_where_records_lie() -> None:
    assert records_uri(ResultsSpec(), workdir="/jobs/u", job_uid="u") == "/jobs/u/records"
    assert records_uri(ResultsSpec(uri="s3://b/runs/"), workdir="/jobs/u", job_uid="u") == "s3://b/runs/u/records"
    assert records_uri(ResultsSpec(), workdir="", job_uid="u") == ""
