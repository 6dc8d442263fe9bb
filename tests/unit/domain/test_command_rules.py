"""The job file of a command: what belongs to it, what does not, and where the problem stands.

Without it settings that a command does not have would be ignored in silence.
"""

from __future__ import annotations

import pytest

from trainctl.controller.domain.explain import plan_sentences
from trainctl.controller.domain.spec import effective, job_from_wire, parse_job
from trainctl.controller.domain.submit import new_job
from trainctl.core.codec import to_wire
from trainctl.core.errors import Problem, SpecError

GOOD = """\
metadata: {name: a}
spec:
  command: [train.py, --epochs, "3"]
  launch: {workdir: /srv, hang: {watch: log, after: 30s}}
  nodes: {min: 1, max: 8}
  resources: {workersPerNode: 8}
"""


def problems(body: str) -> dict[str, Problem]:
    with pytest.raises(SpecError) as caught:
        parse_job(f"metadata: {{name: a}}\nspec:\n{body}", source="job.yaml")
    return {p.path: p for p in caught.value.problems}


def test_a_command_needs_no_micro_batches_and_reads_back_from_its_effective_form() -> None:
    job = parse_job(GOOD, source="job.yaml")
    assert job.spec.runs_command
    whole = effective(job)
    assert effective(whole) == whole
    assert job_from_wire(to_wire(whole)) == whole, "what `get -o yaml` shows can be submitted again"


def test_a_dry_run_says_what_is_run_and_when_it_starts_again() -> None:
    state, events = new_job("u", parse_job(GOOD, source="job.yaml"), workdir="/w", now_s=0.0)
    said = " ".join(plan_sentences(state))
    assert "each worker runs train.py --epochs 3 in /srv" in said
    assert "prints anything for 30s" in said
    assert "live peer" not in said
    assert "step" not in events[0].message


@pytest.mark.parametrize(
    ("body", "path", "part"),
    [
        ("  command: [a]\n  train: {steps: 5}", "spec.train", "either spec.train or spec.command"),
        ("  launch: {workdir: /x}", "spec.launch", "there is none"),
        ("  command: [a]\n  launch: {mode: mpi}", "spec.launch.mode", "torchrun or session"),
        ("  command: [a]\n  launch: {hang: {watch: cpu}}", "spec.launch.hang.watch", "none or log or heartbeat"),
        ("  command: [a]\n  launch: {hang: {after: 5}}", "spec.launch.hang.after", "expected a text"),
        ("  command: [a]\n  launch: {hang: {after: soon}}", "spec.launch.hang.after", "duration"),
        ("  command: [a]\n  launch: {hang: {after: 10ms}}", "spec.launch.hang.after", "at least 1s"),
        ("  command: [python, a.py]\n  launch: {mode: session, hang: {watch: log}}", "spec.launch.hang", "torchrun"),
        ("  command: ['']", "spec.command[0]", "empty text"),
        ('  command: [a, "b\\0c"]', "spec.command[1]", "zero byte"),
        ("  command: train.py", "spec.command", "expected a list"),
        ("  command: [a, 3]", "spec.command[1]", "put it in quotes"),
        ("  command: [a]\n  checkpoint: {intervalSteps: 5}", "spec.checkpoint", "TRAINCTL_WORKDIR"),
        ("  command: [a]\n  results: {tensorboard: true}", "spec.results.tensorboard", "no steps"),
        ("  command: [a]\n  env: {MASTER_PORT: '1'}", "spec.env.MASTER_PORT", "is set for each rank"),
    ],
)
def test_each_rule_names_its_field(body: str, path: str, part: str) -> None:
    assert part in problems(body)[path].message


def test_problems_have_their_places() -> None:
    found = problems('  command:\n    - a\n    - "b\\0"\n  train: {steps: 5}\n')
    assert (found["spec.command[1]"].line, found["spec.command[1]"].column) == (5, 7)
    assert (found["spec.train"].line, found["spec.train"].column) == (6, 10)
