"""Without it a retried submit could start a job twice, and a wrong job file be refused one problem at a time."""

import io
import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

from trainctl.cli.job_file import jobfile
from trainctl.controller.domain.spec.yaml_text import MAX_BYTES
from trainctl.core.errors import ConflictError, Problem, SpecError, UnavailableError
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

JOB = """\
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {name: first}
spec:
  train: {steps: 20}
"""


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(JOB)
    return str(path)


def test_submit_sends_the_job_with_a_request_id(cli: Cli, controller: FakeController, job_file: str) -> None:
    result = cli("submit", "-f", job_file)
    assert result.code == 0
    assert result.out == "job first submitted (uid-first)\n"
    assert "trainctl watch first" in result.err
    ((_, request),) = controller.calls
    assert uuid.UUID(request.request_id)
    assert request.job.spec.train.steps == 20
    assert not request.validate_only


def test_overrides_and_name(cli: Cli, controller: FakeController, job_file: str) -> None:
    result = cli("submit", "-f", job_file, "--set", "spec.train.steps=7", "--name", "other", "-o", "name")
    assert result.out == "other\n"
    assert controller.jobs["other"].spec.spec.train.steps == 7


def test_request_id_is_kept_over_retries_and_shown_with_an_error(
    cli: Cli, controller: FakeController, job_file: str
) -> None:
    controller.failures = [UnavailableError("starting"), ConflictError("job first exists", hint="choose another name")]
    result = cli("submit", "-f", job_file)
    assert result.code == 4
    first, second = (request.request_id for _, request in controller.calls)
    assert first == second
    assert result.err.splitlines() == [
        "error: job first exists (CONFLICT)",
        "hint: choose another name",
        f"request-id: {first}",
    ]
    assert cli("submit", "-f", job_file, "--request-id", "mine").code == 0
    assert controller.calls[-1][1].request_id == "mine"


def test_dry_run_prints_the_plan_and_starts_nothing(cli: Cli, controller: FakeController, job_file: str) -> None:
    result = cli("submit", "-f", job_file, "--dry-run")
    assert result.code == 0
    assert result.out == "2 nodes with 2 workers each\none island\n"
    assert "nothing was started" in result.err
    assert controller.calls[0][1].validate_only
    assert not controller.jobs


def test_all_problems_at_once_with_positions(cli: Cli, controller: FakeController, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(JOB + "  nodes: {min: 4, max: 2}\n  schedling: {}\n")
    result = cli("submit", "-f", str(path))
    assert result.code == 2
    head, *problems, _ = [line for line in result.err.splitlines() if not line.startswith("hint")] + [""]
    assert head == f"error: {path} is invalid (2 problems) (SPEC_INVALID)"
    assert problems[0].startswith(f"  {path}:6:")
    assert "spec.nodes" in problems[0]
    assert problems[1].startswith(f"  {path}:7:3  spec.schedling: ")
    assert '"scheduling"' in problems[1]
    assert not controller.calls


def test_what_only_the_controller_sees_gets_its_position(cli: Cli, controller: FakeController, job_file: str) -> None:
    missing = Problem(path="spec.train.data.uri", message="does not exist")
    controller.failures = [SpecError((missing, Problem(path="spec.train.steps", message="too many")))]
    result = cli("submit", "-f", job_file)
    assert result.code == 2
    # What was not written is shown at its nearest parent.
    assert f"  {job_file}:5:10  spec.train.data.uri: does not exist" in result.err
    assert f"  {job_file}:5:18  spec.train.steps: too many" in result.err


def test_relative_paths_are_made_absolute(
    cli: Cli, controller: FakeController, job_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = ("--set", "spec.train.data.uri=texts/*.txt", "--set", "spec.checkpoint.uri=../saved")
    search = ("--set", "spec.env.PYTHONPATH=.:/abs:latest::../lib", "--set", "spec.env.OTHER=.")
    assert cli("submit", "-f", job_file, *changes, *search).code == 0
    spec = controller.jobs["first"].spec.spec
    assert spec.train.data.uri == f"{tmp_path}/texts/*.txt"
    assert spec.checkpoint.uri == f"{tmp_path}/../saved"
    assert spec.checkpoint.resume_from == "none"
    assert spec.env["PYTHONPATH"] == f"{tmp_path}:/abs:{tmp_path}/latest::{tmp_path}/../lib"
    assert spec.env["OTHER"] == "."
    assert cli("submit", "-f", job_file, "--name", "b", "--set", "spec.train.data.uri=s3://bucket/texts").code == 0
    assert controller.jobs["b"].spec.spec.train.data.uri == "s3://bucket/texts"


def test_stdin_is_read_with_a_dash(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(JOB.encode())))
    assert cli("submit", "-f", "-").code == 0
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"kind: x\n")))
    result = cli("submit", "-f", "-")
    assert result.code == 2
    assert "<stdin>" in result.err


def test_files_that_cannot_be_read_are_one_clear_error(cli: Cli, tmp_path: Path) -> None:
    binary = tmp_path / "model.bin"
    binary.write_bytes(b"\x80\x02}q\x00")
    zeros = tmp_path / "zeros"
    zeros.write_bytes(b"a\0b")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * 10_000_000)
    cases = [
        (str(tmp_path / "missing.yaml"), 3, "does not exist"),
        (str(tmp_path), 2, "is a folder"),
        (str(binary), 2, "byte 0x80"),
        (str(zeros), 2, "zero byte"),
        (str(large), 2, "at most 256 KiB"),
        (str(binary / "x"), 2, "Not a directory"),
    ]
    for name, code, words in cases:
        result = cli("submit", "-f", name)
        assert (result.code, words in result.err) == (code, True), result.err
        assert result.err.count("error:") == 1


def test_never_reads_more_than_a_byte_over_the_limit() -> None:
    class Endless(io.RawIOBase):
        asked = 0

        def read(self, size: int = -1) -> bytes:
            self.asked += size
            assert size > 0
            return b"#" * size

    endless = Endless()
    with pytest.raises(SpecError):
        jobfile.read_job_file("-", stdin=endless)  # type: ignore[arg-type]
    assert endless.asked == MAX_BYTES + 1


def test_unreadable_file_is_a_permission_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(os, "open", refuse)
    result = cli("submit", "-f", "/theirs/job.yaml")
    assert result.code == 5
    assert "/theirs/job.yaml cannot be read by this user" in result.err


def test_what_is_no_regular_file_is_refused_and_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name, what in ((str(pipe), "a named pipe"), ("/dev/zero", "a device")):
        result = cli("submit", "-f", name, "--dry-run=client")
        assert result.code == 2
        assert f"job file {name} cannot be read: it is {what}, expected a regular file (USAGE)" in result.err
        assert "hint: " in result.err


def test_the_pipe_of_a_process_substitution_is_read_to_its_end(job_file: str) -> None:
    script = f"(head -c 7 {job_file}; tail -c +8 {job_file})"
    command = f'"{sys.executable}" -m trainctl.cli submit --dry-run=client -o name -f '
    env = {**os.environ, "TRAINCTL_CONFIG": ""}
    for words in (f"{command} <({script})", f"{script} | {command} /dev/stdin", f"{script} | {command} -"):
        done = subprocess.run(["bash", "-c", words], capture_output=True, text=True, timeout=60, env=env)
        assert (done.stdout, done.returncode) == ("first\n", 0), done.stderr


@pytest.mark.parametrize(("phase", "code"), [("SUCCEEDED", 0), ("FAILED", 8), ("CANCELLED", 9)])
def test_watch_ends_with_the_summary_and_the_code_of_the_phase(
    cli: Cli, controller: FakeController, job_file: str, phase: str, code: int
) -> None:
    done = threading.Event()

    def go_on(method: str) -> None:
        if method == "WatchJob":
            done.set()

    controller.on_call = go_on
    finisher = threading.Thread(target=_finish, args=(controller, done, phase))
    finisher.start()
    result = cli("submit", "-f", job_file, "--watch")
    finisher.join(10)
    assert result.code == code, result.err
    assert "worker 1 on node-0 was killed" in result.out
    assert f"job first {phase} after" in result.out
    assert result.out.count(f"job.{phase.lower()}") == 1


def _finish(controller: FakeController, done: threading.Event, phase: str) -> None:
    assert done.wait(10)
    controller.add_event("worker.exited", "worker 1 on node-0 was killed")
    controller.add_event(f"job.{phase.lower()}", "it is over", to=phase)
    controller.jobs["first"].status.phase = phase


def test_wait_prints_phases_only_and_json_at_the_end(cli: Cli, controller: FakeController, job_file: str) -> None:
    done = threading.Event()
    controller.on_call = lambda method: done.set() if method == "WatchJob" else None
    finisher = threading.Thread(target=_finish, args=(controller, done, "SUCCEEDED"))
    finisher.start()
    result = cli("submit", "-f", job_file, "--wait", "-o", "name")
    finisher.join(10)
    assert result.code == 0
    assert result.out == "first\n"
    assert "QUEUED" in result.err
    assert "SUCCEEDED" in result.err
    assert "worker.exited" not in result.err


def test_wait_for_a_phase_ends_there(cli: Cli, controller: FakeController, job_file: str) -> None:
    def go_on(method: str) -> None:
        if method == "WatchJob":
            controller.jobs["first"].status.phase = "RUNNING"

    controller.on_call = go_on
    result = cli("submit", "-f", job_file, "--wait=running")
    assert result.code == 0
    assert result.out.splitlines()[-1] == "job first reached RUNNING"


@pytest.mark.parametrize(("awaited", "ended", "code"), [("RUNNING", "FAILED", 8), ("FAILED", "FAILED", 0)])
def test_waiting_for_a_phase_that_is_missed(
    cli: Cli, controller: FakeController, job_file: str, awaited: str, ended: str, code: int
) -> None:
    controller.on_call = lambda method: _end(controller, ended) if method == "WatchJob" else None
    assert cli("submit", "-f", job_file, f"--wait={awaited}").code == code


def _end(controller: FakeController, phase: str) -> None:
    controller.jobs["first"].status.phase = phase


def test_a_dry_run_of_the_client_asks_nobody(cli: Cli, controller: FakeController, job_file: str) -> None:
    controller.stop()
    result = cli("submit", "-f", job_file, "--dry-run=client")
    assert result.code == 0, result.err
    assert "job first is valid" in result.out
    full = cli("submit", "-f", job_file, "--dry-run=client", "-o", "jsonpath=.spec.recovery.replacementWait")
    assert full.out == "30s\n"
    assert cli("submit", "-f", job_file, "--dry-run=client", "--set", "spec.train.stepz=1").code == 2
    queued = cli("submit", "-f", job_file, "--dry-run=client", "--set", "spec.scheduling.queue=research")
    assert "spec.scheduling.queue has no effect in this version" in queued.out
    assert not controller.calls


def test_a_value_with_a_star_is_text(cli: Cli, controller: FakeController, job_file: str) -> None:
    assert cli("submit", "-f", job_file, "--set", "spec.train.data.include=*.py").code == 0
    assert controller.jobs["first"].spec.spec.train.data.include == "*.py"
