"""What a run leaves on a real installation: records that survive rank 0, the agents and their folders.

Without it losses and logs could be gone with the machine that wrote them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.local_system import LocalSystem, tiny_job, workers

pytestmark = pytest.mark.e2e
Local = Callable[..., LocalSystem]

HOOK = """
import json
from pathlib import Path
from trainctl.parallel.results import Hook


class Notes(Hook):
    def on_start(self, run):
        self.file = Path(run.spec.env["NOTES"])

    def on_step(self, figures):
        with self.file.open("a") as file:
            file.write(json.dumps({"step": figures.step}) + "\\n")


class Broken(Hook):
    def on_step(self, figures):
        raise RuntimeError("no network")
"""


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_records_survive_rank_0_the_agents_and_their_folders(local: Local, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "own_hooks.py").write_text(HOOK)
    env = {"PYTHONPATH": str(tmp_path), "NOTES": str(tmp_path / "notes.jsonl")}
    system = local()
    override = ["spec.results={hooks: ['own_hooks:Notes', 'own_hooks:Broken'], tensorboard: true}"]
    system.submit(tiny_job("kept", corpus, steps=60, env=env), *(w for o in override for w in ("--set", o)))
    job = system.wait_step("kept", 15, 90)
    os.kill(workers(job)[0].pid, signal.SIGKILL)
    job = system.wait_phase("kept", "SUCCEEDED", 120)
    records = Path(job.status.records)
    assert records == Path(job.status.workdir) / "records"
    assert str(records) in system.cli("describe", "kept").stdout

    found = read(records / "steps.jsonl")
    assert [line["step"] for line in found] == list(range(1, 61))
    listed = system.figures("kept")
    assert [line["sampleDigest"] for line in found] == [figure.sample_digest for figure in listed]
    assert [line["step"] for line in found if "evalLoss" in line] == [20, 40, 60]
    steps = [line["step"] for line in read(tmp_path / "notes.jsonl")]
    assert sorted(set(steps)) == list(range(1, 61))
    assert len(steps) <= 61
    notices = [event.message for event in system.events("kept") if event.type == "worker.notice"]
    assert sum("hook own_hooks:Broken on_step raised RuntimeError: no network" in text for text in notices) == 1

    printed = system.cli("logs", "kept", "--tail", "1000").stdout
    assert "entered with step" in printed
    system.down()
    shutil.rmtree(system.run_dir / "nodes")
    assert list(records.glob("tensorboard/events*"))
    ended = json.loads((records / "job.json").read_text())
    assert (ended["uid"], ended["status"]["phase"], ended["status"]["step"]) == (job.uid, "SUCCEEDED", 60)
    assert [event["type"] for event in read(records / "events.jsonl")][-1] == "job.succeeded"
    system.up()
    kept = system.cli("logs", "kept", "--tail", "1000").stdout
    assert sorted(kept.splitlines()) == sorted(printed.splitlines())
    assert "loss" in system.cli("plot", "kept").stdout


def test_what_is_switched_off_is_not_written(local: Local, corpus: Path, tmp_path: Path) -> None:
    system = local(agents=1, slots=1)
    off = tiny_job("off", corpus, steps=3, nodes=1, per_node=1)
    system.submit(off, "--set", "spec.results={jsonl: false, logs: false}")
    job = system.wait_phase("off", "SUCCEEDED", 90)
    system.down()
    shutil.rmtree(system.run_dir / "nodes")
    assert {path.name for path in Path(job.status.records).iterdir()} == {"job.json", "events.jsonl"}
    system.up()
    assert system.cli("logs", "off").stdout == ""


def test_a_hook_that_does_not_exist_fails_the_job_and_says_so(local: Local, corpus: Path) -> None:
    system = local(agents=1, slots=1)
    job = tiny_job("bad", corpus, steps=3, nodes=1, per_node=1)
    wrong = system.cli("submit", "-f", "-", check=False)
    assert wrong.returncode == 2
    path = system.run_dir.parent / "job.yaml"
    path.write_text(job)
    spelled = system.cli("submit", "-f", str(path), "--set", "spec.results.hooks=[nonsense]", check=False)
    assert spelled.returncode == 2
    assert "spec.results.hooks[0]: expected module:Class" in spelled.stderr
    system.cli("submit", "-f", str(path), "--set", "spec.results.hooks=['no_such_module_here:A']")
    ended = system.wait_phase("bad", "FAILED", 60)
    assert "module no_such_module_here was not found" in ended.status.error.message
