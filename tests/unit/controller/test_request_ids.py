"""Request ids: one is for one request, of whatever kind; what comes again is answered as before.

Without it a retried call could start a second job.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from trainctl.controller.jobs.deleted_job import DeletedJob
from trainctl.core.errors import NotFoundError, UsageError
from trainctl.protos.v1 import access_pb2, job_pb2
from unit.access.api import own
from unit.controller.controller_harness import Client, create, run, serving, spec


def test_an_id_is_for_one_request_whatever_the_verb(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            await call("CreateJob", create(spec(), "r-create"))
            changes: dict[str, dict[str, Any]] = {
                "CancelJob": {}, "ScaleJob": {"max": 2}, "PauseJob": {}, "ResumeJob": {}, "RestartJob": {},
                "RollbackJob": {}, "DeleteJob": {"force": True}, "DeleteCheckpoint": {"step": 1},
                "PinCheckpoint": {"step": 1}, "AcceptCheckpoint": {"uri": "/x"},
                "RefuseCheckpoint": {"uri": "/x", "found": "a flip"},
            }  # fmt: skip
            for method, fields in changes.items():
                request = getattr(job_pb2, f"{method}Request")(name="a", request_id="r-create", **fields)
                with pytest.raises(UsageError) as error:
                    await call(method, request)
                assert error.value.code == "REQUEST_ID_REUSED", method
            assert (await running.client.job("a")).status.phase == "QUEUED"
            with pytest.raises(UsageError) as error:
                await call("CreateJob", create(spec(), "x" * 129))
            assert "at most 128 characters, found 129" in str(error.value)
            assert error.value.hint

    run(main)


def test_a_cancellation_sent_again_is_answered_alike_and_has_one_effect(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            await call("CreateJob", create(spec()))
            request = job_pb2.CancelJobRequest(name="a", request_id="c")
            first = (await call("CancelJob", request)).job
            await running.client.until_phase("a", "CANCELLED")
            second = (await call("CreateJob", create(spec()))).job
            again = (await call("CancelJob", request)).job
            assert (again.uid, again.status.phase) == (first.uid, "CANCELLED")
            assert (await running.client.job(second.uid)).status.phase == "QUEUED"
            with pytest.raises(UsageError) as error:
                await call("CancelJob", job_pb2.CancelJobRequest(name="a", request_id="c", grace_s=1))
            assert error.value.code == "REQUEST_ID_REUSED"

    run(main)


def test_a_request_whose_job_was_deleted_since_says_so(tmp_path: Path) -> None:
    requests = {
        "CreateJob": create(spec(), "r-create"),
        "PauseJob": job_pb2.PauseJobRequest(name="a", request_id="r-pause"),
        "ResumeJob": job_pb2.ResumeJobRequest(name="a", request_id="r-resume"),
        "CancelJob": job_pb2.CancelJobRequest(name="a", request_id="r-cancel"),
    }

    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            for method, request in requests.items():
                answer = await client.call(method, request)
            uid = answer.job.uid
            await client.until_phase("a", "CANCELLED")
            await client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a", request_id="r-delete"))
            await client.until_gone(uid)
            await deleted(client, uid)
        async with serving(tmp_path) as running:
            await deleted(running.client, uid)
            assert not (await running.client.call("ListJobs", job_pb2.ListJobsRequest())).jobs

    async def deleted(client: Client, uid: str) -> None:
        for method, request in requests.items():
            with pytest.raises(NotFoundError) as error:
                await client.call(method, request)
            assert error.value.code == "JOB_DELETED", method
            assert f"took effect before, on job a ({uid})" in str(error.value)
            said = r"deleted since at \d{4}-\d\d-\d\d [\d:]{8} UTC by the controller's own token"
            assert re.search(said, str(error.value))
            assert "new request id" in error.value.hint

    run(main)


def test_a_deletion_that_schema_1_wrote_down_is_read() -> None:
    error = DeletedJob.from_stored("u-7").error()
    assert "on the job u-7; that has been deleted since" in str(error)


def test_an_id_is_for_one_request_about_tokens_too(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            call = own(running).by_name
            grants = [access_pb2.Grant(tenant="default", role="viewer")]
            asked = access_pb2.CreateTokenRequest(name="ann", grants=grants, ttl_s=60, request_id="t")
            token = (await call("CreateToken", asked)).token
            other = (await call("CreateToken", access_pb2.CreateTokenRequest(name="bob", grants=grants))).token
            with pytest.raises(UsageError) as error:
                await call("RevokeToken", access_pb2.RevokeTokenRequest(id=token.id, request_id="t"))
            assert error.value.code == "REQUEST_ID_REUSED"
            ending = access_pb2.RevokeTokenRequest(id=token.id, request_id="u")
            first, again = [(await call("RevokeToken", ending)).token for _ in range(2)]
            assert first == again
            with pytest.raises(UsageError):
                await call("RevokeToken", access_pb2.RevokeTokenRequest(id=other.id, request_id="u"))

    run(main)
