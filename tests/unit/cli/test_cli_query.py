"""Without it scripts could get other values than they ask for, and a shortened name change the wrong job."""

import io
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from trainctl.cli.query.columns import cells, read_columns
from trainctl.cli.query.errors import ExpressionError
from trainctl.cli.query.labels import fits, read_labels
from trainctl.cli.query.reader import read_path, read_predicate
from trainctl.cli.query.select import holds, select
from trainctl.cli.query.template import read_template, render
from trainctl.controller.domain.spec import parse_job
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import job_pb2
from trainctl.protos.v1.records_pb2 import TrainJob
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

DATA: dict[str, Any] = {
    "jobs": [
        {"name": "a", "step": 3, "on": True, "labels": {"team.x/y": "nlp"}, "parts": [1, 2, 3]},
        {"name": "b", "step": 30, "on": False, "labels": {}, "parts": []},
        {"name": "c d", "step": None, "loss": 1.5},
    ],
    "uid": "u",
}


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (".uid", ["u"]),
        ("$.uid", ["u"]),
        ("uid", ["u"]),
        ("jobs[0].name", ["a"]),
        (".jobs[0].name", ["a"]),
        (".jobs[-1]['name']", ["c d"]),
        (".jobs[*].name", ["a", "b", "c d"]),
        (".jobs[0:2].name", ["a", "b"]),
        (".jobs[::2].name", ["a", "c d"]),
        (".jobs[0,2].name", ["a", "c d"]),
        (".jobs[9].name", []),
        (".nothing.at.all", []),
        (".jobs[0].parts[*]", [1, 2, 3]),
        (".jobs[0].*", ["a", 3, True, {"team.x/y": "nlp"}, [1, 2, 3]]),
        ("..name", ["a", "b", "c d"]),
        (".jobs[0].labels['team.x/y']", ["nlp"]),
        (r".jobs[0].labels.team\.x/y", ["nlp"]),
        (".jobs[?(@.step>3)].name", ["b"]),
        (".jobs[?(@.step>=3 && @.on)].name", ["a"]),
        (".jobs[?(@.name=='c d' || @.step==30)].name", ["b", "c d"]),
        (".jobs[?(!(@.on))].name", ["b", "c d"]),
        (".jobs[?(@.name =~ '^[ab]$')].name", ["a", "b"]),
        (".jobs[?(@.on == true)].name", ["a"]),
        (".jobs[?(@.step == null)].name", ["c d"]),
        (".jobs[?(@.loss < 2e0)].name", ["c d"]),
        (".jobs[?(@.name < 5)].name", []),
        (".jobs[?(@.missing != 'x')].name", ["a", "b", "c d"]),
    ],
)
def test_paths_lead_to_values(path: str, values: list[Any]) -> None:
    assert select(read_path(path), DATA) == values


def test_one_is_not_true() -> None:
    assert not holds(read_predicate(".x == true"), {"x": 1})
    assert holds(read_predicate(".x == 1.0"), {"x": 1})


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        (".uid", "u"),
        ("{.uid}", "u"),
        ("{.jobs[*].name}", "a b c d"),
        ("uid={.uid}!", "uid=u!"),
        ('{.uid}{"\\n"}{.jobs[1].step}', "u\n30"),
        ('{range .jobs[*]}{.name}{"\\t"}{.step}{"\\n"}{end}', "a\t3\nb\t30\nc d\tnull\n"),
        ("{range .jobs[*]}{range .parts[*]}<{@}>{end};{end}", "<1><2><3>;;;"),
        (".jobs[0].labels", '{"team.x/y": "nlp"}'),
        (".jobs[0].on", "true"),
    ],
)
def test_templates(text: str, rendered: str) -> None:
    assert render(read_template(text), DATA) == rendered


def test_columns() -> None:
    columns = read_columns("N:.name, P:.parts[*],L:.labels['team.x/y']")
    assert [column.name for column in columns] == ["N", "P", "L"]
    assert [cells(columns, job) for job in DATA["jobs"]] == [
        ["a", "1,2,3", "nlp"],
        ["b", "<none>", "<none>"],
        ["c d", "<none>", "<none>"],
    ]


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("a", ["x", "y"]),
        ("a=1", ["x"]),
        ("a==1", ["x"]),
        ("a!=1", ["y", "z"]),
        ("!a", ["z"]),
        ("a, b=2", ["y"]),
        ("a=", []),
        ("team.x/y=nlp", ["z"]),
    ],
)
def test_labels(selector: str, chosen: list[str]) -> None:
    things = {"x": {"a": "1"}, "y": {"a": "2", "b": "2"}, "z": {"team.x/y": "nlp"}}
    assert [name for name, labels in things.items() if fits(labels, read_labels(selector))] == chosen


@given(st.text(".abc[]*?()'\"@$:,&|!=<>{}0123456789 \\-", max_size=30))
def test_any_text_is_read_or_refused_with_a_position(text: str) -> None:
    for read in (read_path, read_predicate, read_template, read_columns, read_labels):
        try:
            read(text)
        except ExpressionError as error:
            position = int(str(error).split("position ")[1].split(":")[0])
            assert 1 <= position <= len(text) + 1


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(ExpressionError, match="at most 50"):
        read_predicate("(" * 1000 + ".a" + ")" * 1000)


def test_every_reading_command_takes_every_form(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", step=3, total_steps=9)
    job.spec.metadata.labels["team"] = "nlp"
    controller.add_job("b", "FAILED", step=5, total_steps=9)
    controller.add_event("job.submitted", "here we go")
    assert cli("get", "jobs", "-o", "jsonpath={.jobs[*].spec.metadata.name}").out == "b a\n"
    assert cli("get", "job", "a", "-o", "jsonpath=.status.step").out == "3\n"
    table = cli("get", "jobs", "-o", "custom-columns=JOB:.spec.metadata.name,STEP:.status.step").out
    assert [line.split() for line in table.splitlines()] == [["JOB", "STEP"], ["b", "5"], ["a", "3"]]
    assert "team=nlp" in cli("get", "jobs", "-o", "wide").out
    assert cli("get", "jobs", "-l", "team=nlp", "-o", "name").out == "a\n"
    assert cli("get", "jobs", "-l", "!team", "--filter", "status.step>4", "-o", "name").out == "b\n"
    assert cli("get", "jobs", "--filter", ".status.phase=='FAILED'", "-o", "name").out == "b\n"
    assert cli("get", "jobs", "-l", "team=x").err == "no such job\n"
    assert cli("events", "a", "-o", "custom-columns=T:.type").out.split() == ["T", "job.submitted"]
    assert cli("describe", "a", "-o", "jsonpath=.uid").out == "uid-a\n"
    assert cli("explain", "a", "-o", "jsonpath=.sentences[0]").out == "It trains.\n"
    assert cli("version", "-o", "jsonpath=.controller.version").out == "9.9\n"


def test_the_time_between_checkpoints_is_shown_with_its_reason(cli: Cli, controller: FakeController) -> None:
    chosen = job_pb2.CheckpointInterval(interval_s=71.0, reason="one costs 0.21s", since_s=1.5, waste=0.0, cost_s=0.21)
    controller.add_job("a", checkpoint_interval=chosen)
    controller.add_job("b")
    assert "Saves    every 1m11s: one costs 0.21s\n" in cli("describe", "a").out
    shown = json.loads(cli("get", "job", "a", "-o", "json").out)["status"]["checkpointInterval"]
    assert shown == {
        "intervalS": 71.0, "reason": "one costs 0.21s", "since": "1970-01-01T00:00:01.500Z", "waste": 0.0,
        "costS": 0.21,
    }  # fmt: skip
    assert "Saves" not in cli("describe", "b").out
    assert "checkpointInterval" not in json.loads(cli("get", "job", "b", "-o", "json").out)["status"]


def test_the_time_between_snapshots_is_shown_with_its_reason(cli: Cli, controller: FakeController) -> None:
    chosen = job_pb2.CheckpointInterval(interval_s=14.0, reason="one costs 0.01s", since_s=1.5, cost_s=0.01)
    controller.add_job("a", snapshot_interval=chosen)
    assert "Snapshots  every 14s: one costs 0.01s\n" in cli("describe", "a").out
    shown = json.loads(cli("get", "job", "a", "-o", "json").out)["status"]["snapshotInterval"]
    assert (shown["intervalS"], shown["costS"], shown["reason"]) == (14.0, 0.01, "one costs 0.01s")


def test_defaults_are_shown_where_asked_for(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a")
    job.effective_spec.spec.recovery.profile = "fast"
    assert "effectiveSpec" not in json.loads(cli("get", "job", "a", "-o", "json").out)
    shown = json.loads(cli("get", "job", "a", "-o", "json", "--show-defaults").out)
    assert shown["effectiveSpec"]["spec"]["recovery"]["profile"] == "fast"


def test_only_what_was_written_is_shown_and_it_is_a_job_file_again(cli: Cli, controller: FakeController) -> None:
    text = """
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {name: a, labels: {team: nlp}}
spec:
  env: {MODE: ""}
  nodes: {min: 1, max: 3}
  checkpoint: {keep: {last: 9}}
  train: {steps: 77, data: {uri: /corpus, holdOutEvery: 4}, optimizer: {betas: [0.9, 0.98]}}
"""
    job = parse_job(text, source="job.yaml")
    controller.add_job("a").spec.CopyFrom(record_to_message(job, TrainJob))
    for form, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        spec = read(cli("get", "job", "a", "-o", form).out)["spec"]
        assert spec == read(cli("get", "jobs", "-o", form).out)["jobs"][0]["spec"]
        written = yaml.safe_load(text)
        del written["spec"]["nodes"]["min"]  # has its default
        assert spec == written
        assert parse_job(yaml.safe_dump(spec), source="job.yaml") == job
    assert cli("get", "job", "a", "-o", "jsonpath=.spec.spec.nodes.min").out == "1\n"
    whole = json.loads(cli("get", "job", "a", "-o", "json", "--show-defaults").out)["spec"]
    assert whole["spec"]["nodes"]["min"] == 1
    assert whole["spec"]["recovery"]["profile"] == "balanced"


def test_jobs_of_one_name_are_told_apart(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a")
    assert "UID" not in cli("get", "jobs").out
    twin = controller.add_job("b")
    twin.spec.metadata.name = "a"
    lines = cli("get", "jobs").out.splitlines()
    assert lines[0].split()[:2] == ["NAME", "UID"]
    assert {line.split()[1] for line in lines[1:]} == {"uid-a", "uid-b"}


def test_the_beginning_of_a_name_is_enough_to_look_but_not_to_change(cli: Cli, controller: FakeController) -> None:
    for name in ("llama-7b", "llama-70b", "bert"):
        controller.add_job(name)
    found = cli("get", "job", "be", "-o", "name")
    assert (found.out, found.err) == ("bert\n", "be: job bert, the only one that begins so\n")
    assert cli("explain", "uid-be").code == 0
    refused = cli("describe", "llama")
    assert refused.code == 2
    assert refused.err.startswith(
        "error: 'llama' is the beginning of several jobs: llama-70b, llama-7b (AMBIGUOUS_NAME)"
    )
    assert cli("get", "job", "x").code == 3
    assert cli("cancel", "be", "-y").code == 3
    assert cli("get", "job", "bert", "-q", "-o", "name").err == ""


def test_quiet_and_verbose(cli: Cli, controller: FakeController) -> None:
    assert cli("get", "jobs", "-q").err == ""
    told = cli("get", "jobs", "-v").err
    assert f"controller {controller.address} (from TRAINCTL_ADDRESS)" in told
    assert f"ListJobsRequest to {controller.address}: OK in" in told
    assert cli("get", "job", "x", "-q").err.startswith("error: ")
    stream = io.StringIO()
    cli("get", "jobs", out=stream)
    assert "\x1b" not in stream.getvalue()
