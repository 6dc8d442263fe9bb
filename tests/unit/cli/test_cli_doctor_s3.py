"""The doctor on an S3 store that is reached over HTTP, by the variables of a job file and the secrets that it names.

Without it wrong rights on a bucket would show only when a job saves.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from object_store.store import Store
from unit.cli.conftest import Cli, Result
from unit.cli.fake_controller import FakeController

pytest_plugins = ["object_store.fixtures"]
JOB = """\
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {{name: first}}
spec:
  env: {{AWS_ENDPOINT_URL: "{endpoint}", AWS_DEFAULT_REGION: us-east-1}}
  secretEnv: [AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]
  checkpoint: {{uri: "{uri}"}}
  train:
    task: llama
    model: {{layers: 2, hidden: 128, heads: 4, context: 64}}
    data: {{uri: python-stdlib}}
    steps: 120
    batch: {{sequences: 16, microBatches: 4}}
"""
SECRET = "hunter2/with+signs"


@pytest.fixture
def arguments(
    store: Store, environment: dict[str, str], controller: FakeController, tmp_path: Path
) -> tuple[str, str, str, str]:
    """Of a doctor that can reach the store by what the file and the folder of secrets say, and in no other way."""
    environment.update({name: value for name, value in os.environ.items() if not name.startswith("AWS_")})
    environment["AWS_EC2_METADATA_DISABLED"] = "true"
    folder = tmp_path / "secrets"
    folder.mkdir(mode=0o700)
    for name, value in {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        (folder / name).write_text(f"{value}\n")
        (folder / name).chmod(0o600)
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(endpoint=store.proxy.url, uri=store.uri))
    return "--file", str(path), "--secrets", str(folder)


def storage_check(done: Result) -> dict[str, str]:
    (found,) = (check for check in json.loads(done.out)["checks"] if check["check"].startswith("storage"))
    return dict(found)


def test_a_store_that_the_job_can_use_is_written_to_and_left_as_it_was(
    cli: Cli, store: Store, arguments: tuple[str, ...]
) -> None:
    done = cli("doctor", *arguments, "-o", "json")
    found = storage_check(done)
    assert (found["check"], found["status"]) == ("storage spec.checkpoint.uri", "ok"), found
    assert store.proxy.seen("PUT", f"/{store.bucket}/") > 0
    assert store.objects() == []
    assert SECRET not in done.out + done.err


def test_a_store_that_refuses_is_said_with_its_words_and_without_the_secret(
    cli: Cli, store: Store, arguments: tuple[str, ...]
) -> None:
    store.proxy.when("PUT").always().deny()
    done = cli("doctor", *arguments, "-o", "json")
    found = storage_check(done)
    assert (done.code, found["status"]) == (1, "fail"), found
    assert "AccessDenied" in found["message"]
    assert found["remedy"]
    assert SECRET not in done.out + done.err


def test_without_a_secret_the_store_is_not_asked(cli: Cli, store: Store, arguments: tuple[str, ...]) -> None:
    (Path(arguments[-1]) / "AWS_ACCESS_KEY_ID").unlink()
    before = len(store.proxy.requests)
    found = storage_check(cli("doctor", *arguments, "-o", "json"))
    assert "AWS_ACCESS_KEY_ID cannot be read" in found["message"]
    assert len(store.proxy.requests) == before
