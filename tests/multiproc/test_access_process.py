"""Tokens, tenants and the audit log as somebody at a terminal meets them; and a controller that dies in between.

Without it somebody could see or change another tenant's jobs, or a change be missing in the log.
"""

from __future__ import annotations

import io
import json
import re
import signal
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest

from multiproc.armed_faults import ArmedFaults, fault
from multiproc.controller_process import started
from trainctl.cli.main import main
from trainctl.protos.v1 import job_pb2, job_pb2_grpc
from trainctl.protos.version import call_metadata
from unit.controller.controller_harness import create, spec
from waiting import PATIENCE_S

pytestmark = pytest.mark.multiproc
JOB = """\
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {{name: first{tenant}}}
spec: {{command: ["true"], launch: {{mode: torchrun}}}}
"""


class Terminal:
    """Runs commands as somebody with a token file."""

    def __init__(self, folder: Path, address: str, token_file: Path, **more: str) -> None:
        self.env = {
            "TRAINCTL_ADDRESS": address,
            "TRAINCTL_TOKEN_FILE": str(token_file),
            "TRAINCTL_HOME": str(folder / "home"),
            "TRAINCTL_CONFIG": "",
            **more,
        }

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it writes to stdout, or with an exit code to stderr."""
        out, err = io.StringIO(), io.StringIO()
        assert main(arguments, out=out, err=err, env=self.env) == code, (arguments, out.getvalue(), err.getvalue())
        return err.getvalue() if code else out.getvalue()


def test_who_has_a_token_works_in_its_tenant_and_nowhere_else(tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = tmp_path / "job.yaml"
    job.write_text(JOB.format(tenant=""))
    with started(run) as (_, data):
        owner = Terminal(tmp_path, data["address"], run / "token")
        assert "its administrator" in owner("tokens", "whoami")
        grant = ("--role", "submitter", "--tenant", "research")
        owner("tokens", "create", "ann", *grant, "--out", str(tmp_path / "ann.token"))
        assert stat.S_IMODE((tmp_path / "ann.token").stat().st_mode) == 0o600
        assert "exists (CONFLICT)" in owner(
            "tokens", "create", "b", *grant, "--out", str(tmp_path / "ann.token"), code=4
        )
        ann = Terminal(tmp_path, data["address"], tmp_path / "ann.token")
        whoami = ann("tokens", "whoami")
        assert re.search(r"you are +ann \(token [0-9a-f]{8}\)", whoami)
        assert re.search(r"tenant +research", whoami)
        assert "submitter in research" in whoami
        assert re.search(r"^you +ann \(token [0-9a-f]{8}\)$", ann("version"), re.MULTILINE)
        ann("submit", "-f", str(job))
        assert "first" in ann("get", "jobs")
        assert "first" not in owner("get", "jobs")
        assert "first" in owner("get", "jobs", "--tenant", "research")
        wrong = ann("get", "jobs", "--tenant", "other", code=5)
        assert "ListJobs needs the role viewer in tenant other; this is ann (token" in wrong
        assert "ask an admin of tenant other: trainctl tokens create NAME --role viewer --tenant other" in wrong
        assert "needs the role operator in all tenants" in ann("nodes", "cordon", "node-0", code=5)
        assert 'found "Research!"' in ann("get", "jobs", "--tenant", "Research!", code=2)
        pages = json.loads(owner("audit", "--who", "ann", "-o", "json"))["records"]
        assert [(one["method"], one["tenant"], one["outcome"]) for one in pages] == [
            ("CreateJob", "research", "OK"),
            ("ListJobs", "other", "PERMISSION_DENIED"),
            ("CordonNode", "", "PERMISSION_DENIED"),
        ]
        assert "needs the role admin in some tenant" in ann("audit", code=5)
        token = json.loads(owner("tokens", "list", "-o", "json"))["tokens"][0]["id"]
        owner("tokens", "revoke", token, "-y")
        assert re.search(rf"token {token} of ann was revoked at .* UTC \(UNAUTHENTICATED\)", ann("get", "jobs", code=5))


def test_the_tenant_of_a_file_and_that_of_the_command_have_to_agree(tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = tmp_path / "job.yaml"
    job.write_text(JOB.format(tenant=", tenant: research"))
    with started(run) as (_, data):
        owner = Terminal(tmp_path, data["address"], run / "token", TRAINCTL_TENANT="other")
        wrong = owner("submit", "-f", str(job), code=2)
        assert f'{job}:3:33  metadata.tenant: expected "other" (TRAINCTL_TENANT), found "research"' in wrong
        owner("submit", "-f", str(job), "--tenant", "research", "-o", "name")
        owner.env["TRAINCTL_TENANT"] = ""
        again = owner("submit", "-f", str(job), "--name", "second", "-o", "json")
        assert json.loads(again)["spec"]["metadata"]["tenant"] == "research"
        assert "default" not in owner("get", "jobs", "--tenant", "research")


@pytest.mark.parametrize("method", ["PauseJob", "DeleteJob"])
def test_a_controller_that_dies_between_writing_down_and_doing_leaves_no_gap(tmp_path: Path, method: str) -> None:
    faults = ArmedFaults(tmp_path / "faults", [fault("controller.audited", method=method)])

    def asked(data: dict[str, Any]) -> None:
        with grpc.insecure_channel(data["address"]) as channel:
            stub = job_pb2_grpc.JobServiceStub(channel)
            metadata = call_metadata((tmp_path / "token").read_text().strip())
            stub.CreateJob(create(spec()), metadata=metadata, timeout=PATIENCE_S)
            request = getattr(job_pb2, f"{method}Request")(name="a", request_id="r-1")
            with pytest.raises(grpc.RpcError):
                getattr(stub, method)(request, metadata=metadata, timeout=PATIENCE_S)

    with started(tmp_path, env=faults.environment) as (process, data):
        asked(data)
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    with started(tmp_path) as (_, data):
        owner = Terminal(tmp_path, data["address"], tmp_path / "token")
        owner("cancel", "a", "-y")
        records: list[Any] = []
        while not records or not all(one["outcome"] for one in records):
            records = json.loads(owner("audit", "-o", "json"))["records"]
        assert [one["number"] for one in records] == list(range(1, len(records) + 1))
        assert [(one["method"], one["outcome"], one["requestId"]) for one in records][:2] == [
            ("CreateJob", "OK", ""), (method, "UNKNOWN", "r-1")
        ]  # fmt: skip
        assert (records[-1]["method"], records[-1]["epoch"]) == ("CancelJob", 2)
        assert '"CANCELLED"' in owner("get", "job", "a", "-o", "json")
