"""A secret of a job: in its environment, and nowhere else.

Without it a password could be read in logs, files, the store, or by another tenant.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from e2e.local_system import LocalSystem

pytestmark = pytest.mark.e2e
VALUE = "hunter2-7f1d0c55"
JOB = """\
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {{name: {name}}}
spec:
  command: [sh, -c, 'test "$MY_TOKEN" = "$(cat {copy})"']
  secretEnv: [{secret}]
  launch: {{mode: torchrun}}
  recovery: {{profile: fast}}
"""


class SystemWithSecrets(LocalSystem):
    def up(self) -> None:
        secrets = str(self.run_dir.parent / "secrets")
        self.cli("local", "up", "--agents", "1", "--slots", "1", "--dir", str(self.run_dir), "--secrets", secrets)


def test_a_secret_reaches_the_job_and_nobody_else(tmp_path: Path) -> None:
    system = SystemWithSecrets(tmp_path / "local")
    secrets, copy = tmp_path / "secrets", tmp_path / "copy"
    secrets.mkdir(mode=0o700)
    copy.write_text(VALUE)
    for name, mode in (("MY_TOKEN", 0o600), ("OPEN_TOKEN", 0o644)):
        (secrets / name).write_text(f"{VALUE}\n")
        (secrets / name).chmod(mode)
    system.up()
    try:
        system.submit(JOB.format(name="good", copy=copy, secret="MY_TOKEN"))
        system.wait_phase("good", "SUCCEEDED")
        for name, secret, words in (
            ("missing", "NO_TOKEN", f"{secrets / 'NO_TOKEN'} cannot be read"),
            ("open", "OPEN_TOKEN", f"{secrets / 'OPEN_TOKEN'} is open to others than its owner"),
        ):
            system.submit(JOB.format(name=name, copy=copy, secret=secret))
            job = system.wait_phase(name, "FAILED")
            assert job.status.error.code == "SECRET_UNUSABLE"
            assert job.status.restarts == 0
            assert words in system.cli("explain", name).stdout
        lines = [Path(f"/proc/{pid}/cmdline") for pid in os.listdir("/proc") if pid.isdigit()]
        assert not any(VALUE.encode() in _read(path) for path in lines)
        shown = system.cli("describe", "good").stdout + system.cli("get", "job", "good", "-o", "json").stdout
        assert VALUE not in shown
        assert "MY_TOKEN" in shown
    finally:
        system.down()
    kept = [path for path in system.run_dir.rglob("*") if path.is_file() and VALUE.encode() in path.read_bytes()]
    assert not kept, kept


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
