"""Jobs with checkpoints on an S3 store: found wrong before anything starts, saved, lost, damaged, and gone back to.

Without it jobs that save to S3 could lose their checkpoints, or train for hours before the first save fails.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.ledger import assert_exact_ledger
from e2e.local_system import LocalSystem, tiny_job, workers
from object_store.store import Store, bucket, emulator
from trainctl.checkpoint.storage.opening import open_storage

pytestmark = pytest.mark.e2e
STEPS = 40


@dataclass
class Setting:
    system: LocalSystem
    store: Store


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with pytest.MonkeyPatch.context() as patched, emulator() as upstream, bucket(upstream, patched) as store:
        env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        system = LocalSystem(tmp_path_factory.mktemp("s3") / "local", env=env)
        system.up()
        yield Setting(system, store)
        system.down()


def on(uri: str) -> tuple[str, str]:
    return "--set", f"spec.checkpoint.uri={uri}"


def test_a_bucket_that_is_missing_is_said_before_anything_starts(
    setting: Setting, corpus: Path, tmp_path: Path
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(tiny_job("nowhere", corpus))
    uri = f"s3://{setting.store.bucket}-typo/x"
    done = setting.system.cli("submit", "-f", str(path), *on(uri), check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for words in ("spec.checkpoint.uri", uri, "make the bucket, or correct the URI"):
        assert words in done.stderr
    misspelt = setting.system.cli("submit", "-f", str(path), *on("s3//bucket/x"), check=False)
    assert misspelt.returncode == 2
    assert "expected a path, or a URL such as s3://bucket/x" in misspelt.stderr
    setting.store.proxy.when("GET").always().refuse(403, "InvalidAccessKeyId")
    refused = setting.system.cli("submit", "-f", str(path), *on(f"{setting.store.uri}/x"), check=False)
    setting.store.proxy.calm()
    assert refused.returncode == 2
    for words in ("spec.checkpoint.uri", f"{setting.store.uri}/x", setting.store.proxy.url, "credentials are wrong"):
        assert words in refused.stderr
    assert not setting.system.cli("get", "jobs", "-o", "name").stdout


def test_a_right_that_only_the_workers_lack_is_said_before_the_first_step(setting: Setting, corpus: Path) -> None:
    system, store = setting.system, setting.store
    env = {"AWS_STS_REGIONAL_ENDPOINTS": "regional"}  # as one that the controller does not have
    store.proxy.when("PUT", "trainctl-probe").always().deny()
    path = system.run_dir.parent / "job.yaml"
    path.write_text(tiny_job("denied", corpus, env=env))
    system.cli("submit", "-f", str(path), *on(f"{store.uri}/denied"))
    job = system.wait_phase("denied", "FAILED", 60)
    store.proxy.calm()
    assert "STORAGE_REFUSED" in (job.status.error.code, job.status.reason)
    assert f"writing to {store.uri}/denied failed" in job.status.message
    assert "lack a right" in job.status.hint
    assert not system.figures("denied")


def test_what_is_damaged_on_the_store_is_passed_over_through_all_its_troubles(setting: Setting, corpus: Path) -> None:
    system, store = setting.system, setting.store
    store.proxy.when("PUT", "data/").times(3).slow_down()
    store.proxy.when("PUT", "manifest.json").lose_the_answer()
    path = system.run_dir.parent / "job.yaml"
    path.write_text(tiny_job("first", corpus, steps=STEPS, interval_steps=10))
    system.cli("submit", "-f", str(path), *on(f"{store.uri}/first"))
    job = system.wait(
        "first", "two checkpoints", lambda job: job.status.checkpoint.step >= 20 and len(workers(job)) == 4
    )
    for worker in workers(job).values():
        os.kill(worker.pid, signal.SIGSTOP)
    newest = system.job("first").status.checkpoint
    storage = open_storage(newest.uri)
    name = max(storage.list("data"), key=lambda one: storage.size(f"data/{one}") or 0)
    body = storage.read(f"data/{name}")
    storage.write_file(f"data/{name}", [body[:-1], bytes([body[-1] ^ 1])])
    store.proxy.when("GET", "data/").times(2).break_in_the_body(1000)
    for worker in workers(job).values():
        os.kill(worker.pid, signal.SIGKILL)
    system.wait_phase("first", "SUCCEEDED", 120)
    assert_exact_ledger(system.figures("first"), steps=STEPS, sequences=24)
    (rejected,) = [event for event in system.events("first") if event.type == "checkpoint.rejected"]
    assert newest.uri in rejected.message
    assert name in rejected.message
    assert int(rejected.fields["instead_step"]) < newest.step
    assert "is whole" in system.cli("checkpoints", "verify", "first").stdout
    assert "s3://" in system.cli("checkpoints", "describe", "first").stdout
