"""Who may call what: each role, in its tenant, in another one and in all of them, with every method of the API.

Without it a viewer could cancel jobs, or one tenant read those of another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from trainctl.controller.access.limits import Limits, Rate
from trainctl.core.errors import TrainctlError
from trainctl.protos.v1 import access_pb2, job_pb2
from unit.access.api import Api, message_of, methods, own, token_for, with_token
from unit.controller.controller_harness import Running, create, run, serving, spec

LOOKING = [
    "GetJob",
    "ListJobs",
    "WatchJob",
    "ListEvents",
    "WatchEvents",
    "StreamLogs",
    "ListFigures",
    "ExplainJob",
    "ListCheckpoints",
]
MAKING = ["CreateJob"]
CHANGING = [
    "CancelJob",
    "ScaleJob",
    "PauseJob",
    "ResumeJob",
    "RestartJob",
    "RollbackJob",
    "DeleteJob",
    "DeleteCheckpoint",
    "PinCheckpoint",
    "RefuseCheckpoint",
]
OPERATING = ["AcceptCheckpoint"]
NODES = ["CordonNode", "UncordonNode", "CreateJoinToken", "ListJoinTokens", "RevokeJoinToken"]
GIVING = ["CreateToken"]
GOVERNING = ["ListTokens", "RevokeToken", "ListAudit"]
AGENTS = ["Register", "Session", "Renew"]
FOR_ALL = ["WhoAmI", "GetVersion"]
OPEN = ["Join", "Locate"]
OFTEN = Limits(calls=Rate(1e6, 1e6))
"""These tests call every method with one token, on a fast machine within the second."""
ROLES = ("viewer", "submitter", "operator", "admin")


def allowed(method: str, role: str, *, granted: str, tenant: str) -> bool:
    """What the documentation says."""
    rank = ROLES.index(role)
    here = granted in ("*", tenant)
    if method in (*OPEN, *FOR_ALL):
        return True
    if method in LOOKING:
        return here
    if method in MAKING or method in CHANGING:
        return here and rank >= 1
    if method in OPERATING:
        return here and rank >= 2
    if method in NODES:
        return granted == "*" and rank >= 2
    if method in GIVING:
        return here and rank >= 3
    if method in GOVERNING:
        return rank >= 3
    return method == "ListNodes"


def request_for(method: MethodDescriptor, tenant: str) -> Any:
    """Names something that does not exist, so that nothing happens."""
    request = message_of(method)()
    if method.name == "CreateJob":
        return create(spec("x") | {"metadata": {"name": "x", "tenant": tenant}}, validate_only=True)
    if method.name == "CreateToken":
        return access_pb2.CreateTokenRequest(name="", grants=[access_pb2.Grant(tenant=tenant, role="viewer")])
    for field, value in (("tenant", tenant), ("name", "nothing"), ("node", "nowhere"), ("id", "none")):
        if field in method.input_type.fields_by_name:
            setattr(request, field, value)
    return request


def test_every_method_is_somewhere_in_the_matrix() -> None:
    known = [
        *LOOKING,
        *MAKING,
        *CHANGING,
        *OPERATING,
        *NODES,
        *GIVING,
        *GOVERNING,
        *AGENTS,
        *FOR_ALL,
        *OPEN,
        "ListNodes",
    ]
    assert sorted(known) == sorted(method.name for method in methods())


def test_each_role_may_what_it_is_said_to_and_nothing_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits=OFTEN) as running:
            for role in ROLES:
                for granted in ("research", "*"):
                    token = await token_for(running, f"{role}-of-it", (granted, role))
                    for tenant in ("research", "other"):
                        await check(with_token(running, token), role, granted, tenant)

    run(main)


async def check(api: Api, role: str, granted: str, tenant: str) -> None:
    for method in methods():
        error = await api.refusal(method, request_for(method, tenant))
        said = f"{method.name} as {role} in {granted}, of {tenant}: {error!r}"
        if allowed(method.name, role, granted=granted, tenant=tenant):
            assert error is None or error.code not in ("PERMISSION_DENIED", "UNAUTHENTICATED", "INTERNAL"), said
            continue
        assert error is not None, said
        assert error.code == "PERMISSION_DENIED", said
        assert f"{role}-of-it" in str(error), said
        if method.name not in AGENTS:
            assert "trainctl tokens create" in error.hint, said
        if method.name in LOOKING:
            assert f"tenant {tenant}" in str(error), said


def test_nobody_gets_at_a_job_of_another_tenant_by_its_uid_or_name(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits=OFTEN) as running:
            uid, _ = await job_of(running, "research")
            api = with_token(running, await token_for(running, "eve", ("other", "admin")))
            for method in methods():
                for name in (uid, "secret-job", "secret"):
                    request = message_of(method)()
                    if method.name not in (*LOOKING, *CHANGING) or "name" not in method.input_type.fields_by_name:
                        continue
                    request.name = name
                    prepare(request)
                    error = await api.refusal(method, request)
                    nothing = message_of(method)()
                    nothing.CopyFrom(request)
                    nothing.name = "n" * len(name)
                    absent = await api.refusal(method, nothing)
                    assert error is not None, method.name
                    assert error.code == "NOT_FOUND", (method.name, error)
                    assert str(error).replace(name, "") == str(absent).replace(nothing.name, ""), "it tells of it"
            listed = await api.by_name("ListJobs", job_pb2.ListJobsRequest())
            assert not listed.jobs
            agent = await running.agent()
            await running.client.call("ListNodes", job_pb2.ListNodesRequest())
            nodes = await api.by_name("ListNodes", job_pb2.ListNodesRequest())
            assert [list(node.jobs) for node in nodes.nodes] == [[]]
            everything = await own(running).by_name("ListNodes", job_pb2.ListNodesRequest())
            assert [job.name for node in everything.nodes for job in node.jobs] in ([], ["secret-job"])
            await agent.disconnect()

    run(main)


def prepare(request: Message) -> None:
    """What these methods refuse before they look for the job."""
    if isinstance(request, job_pb2.ScaleJobRequest):
        request.max = 1


async def job_of(running: Running, tenant: str, *, token: str = "") -> tuple[str, str]:
    api = with_token(running, token) if token else own(running)
    job = spec("secret-job") | {"metadata": {"name": "secret-job", "tenant": tenant}}
    made = (await api.by_name("CreateJob", create(job, f"r-{tenant}"))).job
    return made.uid, made.spec.metadata.tenant


def test_a_request_id_of_another_tenant_answers_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits=OFTEN) as running:
            uid, _ = await job_of(running, "research")
            eve = await token_for(running, "eve", ("other", "submitter"))
            same_id = create(spec("mine") | {"metadata": {"name": "mine"}}, "r-research")
            made = (await with_token(running, eve).by_name("CreateJob", same_id)).job
            assert made.uid != uid
            assert made.spec.metadata.tenant == "other", "the token's only tenant is meant where none is named"

    run(main)


def test_a_submitter_changes_what_it_made_and_an_operator_what_others_made(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path, limits=OFTEN) as running:
            ann = await token_for(running, "ann", ("research", "submitter"))
            bob = await token_for(running, "bob", ("research", "submitter"))
            carl = await token_for(running, "carl", ("research", "operator"))
            await job_of(running, "research", token=ann)
            pause = job_pb2.PauseJobRequest(name="secret-job")
            refused = await refusal(running, bob, "PauseJob", pause)
            assert refused is not None
            assert refused.code == "PERMISSION_DENIED"
            assert "somebody else made" in str(refused)
            assert "--role operator --tenant research" in refused.hint
            assert await refusal(running, ann, "PauseJob", pause) is None
            assert await refusal(running, carl, "ResumeJob", job_pb2.ResumeJobRequest(name="secret-job")) is None
            assert await refusal(running, bob, "GetJob", job_pb2.GetJobRequest(name="secret-job")) is None

    run(main)


async def refusal(running: Running, token: str, name: str, request: Any) -> TrainctlError | None:
    method = next(method for method in methods() if method.name == name)
    return await with_token(running, token).refusal(method, request)


def test_no_job_starts_from_or_writes_into_a_folder_of_another_tenant(tmp_path: Path) -> None:
    from_home = os.path.relpath(tmp_path, Path.home())

    async def main() -> None:
        async with serving(tmp_path, limits=OFTEN) as running:
            uid, _ = await job_of(running, "research")
            eve = await token_for(running, "eve", ("other", "submitter"))
            theirs = str(tmp_path / "jobs" / uid / "checkpoints")
            (tmp_path / "link").symlink_to(tmp_path / "jobs" / uid)
            for field, value in (
                ("resumeFrom", f"{theirs}/step-1"),
                ("uri", theirs),
                ("uri", f"{tmp_path}/jobs/unknown"),
                ("uri", f"{tmp_path}/link/checkpoints"),
                ("uri", f"file://{tmp_path}/j%6Fbs/{uid}/checkpoints"),
                ("resumeFrom", f"file://localhost{theirs}"),
                ("resumeFrom", f"local://{theirs}"),
                ("resumeFrom", f"~/{from_home}/jobs/{uid}/checkpoints"),
            ):
                job = spec("mine")
                job["spec"]["checkpoint"] = {field: value}
                error = await refusal(running, eve, "CreateJob", create(job))
                assert error is not None
                assert error.code == "SPEC_INVALID"
                assert f"{value} is not of tenant other" in str(error)

    run(main)
