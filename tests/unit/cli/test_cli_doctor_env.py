"""The doctor reaches storage as a job would: by the job file's variables and the secrets that it names.

Without it the doctor could find a storage that jobs do not, or the other way round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trainctl.cli.doctor import gather_processes, gather_storage
from trainctl.cli.doctor.facts import Torch
from trainctl.cli.doctor.job_env import job_env
from unit.cli.conftest import Cli, Result
from unit.cli.fake_controller import FakeController

JOB = """\
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {name: first}
spec:
  env: {AWS_ENDPOINT_URL: "http://store.example:9000", AWS_ACCESS_KEY_ID: me, PYTHONPATH: /theirs}
  secretEnv: [AWS_SECRET_ACCESS_KEY, WANDB_API_KEY]
  checkpoint: {uri: "s3://bucket/runs"}
  results: {uri: "s3://bucket/results"}
  train:
    task: llama
    model: {layers: 2, hidden: 128, heads: 4, context: 64}
    data: {uri: python-stdlib}
    steps: 120
    batch: {sequences: 16, microBatches: 4}
"""
SECRET = "hunter2/with+signs"


class Probe:
    """In the place of the processes that try storages: notes what each was given."""

    def __init__(self, error: str = "") -> None:
        self.error = error
        self.asked: dict[str, Mapping[str, str]] = {}

    def __call__(
        self, module: str, arguments: tuple[str, ...], env: Mapping[str, str], timeout_s: float
    ) -> dict[str, Any]:
        assert SECRET not in " ".join(arguments), "others see command lines"
        self.asked[arguments[0]] = env
        hint = f"look at {SECRET}" if self.error else ""
        return {"error": self.error, "hint": hint, "notes": [], "tookS": 0.1}


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    found = Probe()
    monkeypatch.setattr(gather_storage, "ask", found)
    monkeypatch.setattr(gather_processes, "torch", lambda env: Torch(version="2.13.0", backends=("gloo",)))
    return found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return path


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(f"{SECRET}\n")
    (folder / "AWS_SECRET_ACCESS_KEY").chmod(0o600)
    return folder


def storage_checks(done: Result) -> list[dict[str, str]]:
    return [check for check in json.loads(done.out)["checks"] if check["check"].startswith("storage")]


def test_a_named_storage_is_reached_as_the_job_would(
    cli: Cli, controller: FakeController, probe: Probe, file: Path, secrets: Path
) -> None:
    done = cli("doctor", "--storage", "s3://bucket/x", "--file", str(file), "--secrets", str(secrets), "-o", "json")
    (env,) = probe.asked.values()
    assert (env["AWS_SECRET_ACCESS_KEY"], env["AWS_ACCESS_KEY_ID"]) == (SECRET, "me")
    assert env["AWS_ENDPOINT_URL"] == "http://store.example:9000"
    assert env.get("PYTHONPATH") != "/theirs", "what tries it is ours"
    assert "WANDB_API_KEY" not in env
    assert [check["status"] for check in storage_checks(done)] == ["ok"]
    assert SECRET not in done.out + done.err


def test_without_a_name_the_places_of_the_file_are_tried(
    cli: Cli, controller: FakeController, probe: Probe, file: Path, secrets: Path
) -> None:
    done = cli("doctor", "-f", str(file), "--secrets", str(secrets), "-o", "json")
    names = [check["check"] for check in storage_checks(done)]
    assert names == ["storage spec.checkpoint.uri", "storage spec.results.uri"]
    assert set(probe.asked) == {"s3://bucket/runs", "s3://bucket/results"}


@pytest.mark.parametrize("output", [(), ("-o", "json")])
def test_what_a_driver_says_never_shows_a_secret(
    cli: Cli, controller: FakeController, probe: Probe, file: Path, secrets: Path, output: tuple[str, ...]
) -> None:
    probe.error = f"the key {SECRET} is not known"
    done = cli("doctor", "--storage", "s3://bucket/x", "-f", str(file), "--secrets", str(secrets), *output)
    assert done.code == 1
    assert "the key <AWS_SECRET_ACCESS_KEY> is not known" in done.out
    assert "look at <AWS_SECRET_ACCESS_KEY>" in done.out
    assert SECRET not in done.out + done.err


def test_a_credential_that_is_missing_is_named_and_nothing_is_tried_without_it(
    cli: Cli, controller: FakeController, probe: Probe, file: Path, secrets: Path, tmp_path: Path
) -> None:
    (secrets / "AWS_SECRET_ACCESS_KEY").unlink()
    places = ("--storage", "s3://bucket/x", "--storage", str(tmp_path))
    done = cli("doctor", *places, "-f", str(file), "--secrets", str(secrets), "-o", "json")
    assert done.code == 1
    bucket, path = storage_checks(done)
    assert f"{secrets}/AWS_SECRET_ACCESS_KEY cannot be read: No such file" in bucket["message"]
    assert "put the value into that file" in bucket["remedy"]
    assert "WANDB" not in bucket["message"]
    assert path["status"] == "ok"
    assert list(probe.asked) == [str(tmp_path)]
    (secrets / "AWS_SECRET_ACCESS_KEY").write_text(SECRET)
    (secrets / "AWS_SECRET_ACCESS_KEY").chmod(0o644)
    done = cli("doctor", "--storage", "s3://bucket/x", "-f", str(file), "--secrets", str(secrets))
    assert "open to others than its owner" in done.out
    assert SECRET not in done.out


def test_where_the_secrets_lie_is_known_of_the_installation_of_this_machine(
    cli: Cli, controller: FakeController, probe: Probe, file: Path, secrets: Path, environment: dict[str, str]
) -> None:
    unknown = cli("doctor", "--storage", "s3://b/x", "-f", str(file))
    assert "names AWS_SECRET_ACCESS_KEY, and where their values lie is not known here" in unknown.out
    assert "do: name the folder of their values with --secrets DIR" in unknown.out
    assert not probe.asked
    run_dir = Path(environment["TRAINCTL_HOME"]) / "local"
    run_dir.mkdir(parents=True)
    facts = {"pid": 2**22, "start_ticks": 1, "address": controller.address, "secrets": str(secrets)}
    (run_dir / "controller.json").write_text(json.dumps(facts))
    assert "storage --storage" in cli("doctor", "--storage", "s3://b/x", "-f", str(file)).out
    assert probe.asked["s3://b/x"]["AWS_SECRET_ACCESS_KEY"] == SECRET


def test_a_job_that_runs_has_its_own_too(
    cli: Cli, controller: FakeController, probe: Probe, secrets: Path, environment: dict[str, str]
) -> None:
    spec = controller.add_job("first").effective_spec.spec
    spec.checkpoint.uri = "s3://bucket/runs"
    spec.env["AWS_ACCESS_KEY_ID"] = "me"
    spec.secret_env.append("AWS_SECRET_ACCESS_KEY")
    cli("doctor", "--job", "first", "--secrets", str(secrets))
    env = probe.asked.pop("s3://bucket/runs")
    assert (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"]) == ("me", SECRET)
    environment["AWS_SECRET_ACCESS_KEY"] = "of this shell"
    cli("doctor", "--job", "first")
    assert probe.asked["s3://bucket/runs"]["AWS_SECRET_ACCESS_KEY"] == "of this shell"


def test_what_cannot_be_meant_is_refused_before_anything_is_looked_at(
    cli: Cli, controller: FakeController, probe: Probe, file: Path, tmp_path: Path
) -> None:
    file.write_text(JOB.replace("steps: 120", "steps: many").replace("layers: 2", "layer: 2"))
    done = cli("doctor", "-f", str(file))
    assert done.code == 2
    assert "steps" in done.err
    assert "layer" in done.err
    assert f"{file}:" in done.err
    assert cli("doctor", "-f", str(tmp_path / "nowhere.yaml")).code == 3
    alone = cli("doctor", "--secrets", str(tmp_path))
    assert (alone.code, "--secrets" in alone.err, "--file" in alone.err) == (2, True, True)
    assert cli("doctor", "-f", str(file), "--secrets", "").code == 2
    assert not probe.asked


def test_the_longest_secret_is_hidden_first_and_an_empty_one_hides_nothing(tmp_path: Path) -> None:
    for name, value in {"AWS_A": "abc", "AWS_B": "abcdef", "AWS_C": ""}.items():
        (tmp_path / name).write_text(value)
        (tmp_path / name).chmod(0o600)
    found = job_env({}, ["AWS_A", "AWS_B", "AWS_C"], tmp_path)
    assert found.hidden("abcdef, abc") == "<AWS_B>, <AWS_A>"
    assert "abc" not in repr(found)
    assert found.error == ""
