"""Deleting jobs: everything of the job goes, nothing of anybody else, also when the controller dies on the way.

Without it deleting a job could remove files of another one, or leave a full disk.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from trainctl.checkpoint.kept.retention import forget
from trainctl.checkpoint.manifest.names import attempt_folder, attempt_id
from trainctl.controller.jobs.remains import Remains, remove
from trainctl.core.errors import CheckpointError, NotFoundError, PreconditionError, UsageError
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import Client, create, run, serving, spec
from unit.controller.saved_jobs import cancelled, save


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_only_attempts_that_name_the_job_are_removed(tmp_path: Path) -> None:
    own = [save(tmp_path, "mine", step) for step in (10, 20)]
    save(tmp_path, "other", 10)
    interrupted = tmp_path / attempt_folder(30, attempt_id("mine", 30)) / "data"
    interrupted.mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("of the user")
    broken = save(tmp_path, "mine", 40)
    (broken / "manifest.json").write_text('{"job": "mine"')
    before = files(tmp_path)
    removed = forget(str(tmp_path), job="mine", protect=frozenset({attempt_id("mine", 20)}))
    assert removed == (attempt_folder(10, attempt_id("mine", 10)),)
    gone = {name for name in before if name.startswith(removed[0])}
    assert files(tmp_path) == before - gone
    assert own[1].exists()


def test_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    precious = save(outside, "mine", 10)
    root = tmp_path / "root"
    root.mkdir()
    (root / "step-000000000010").symlink_to(outside / "step-000000000010")
    with pytest.raises(CheckpointError, match="a link leads out of the folder"):
        forget(str(root), job="mine")
    assert (precious / "manifest.json").exists()
    (root / "step-000000000010").unlink()
    workdir = root / "jobs" / "mine"
    workdir.mkdir(parents=True)
    (workdir / "checkpoints").symlink_to(outside)
    (workdir / "link").symlink_to(outside)
    keep = Remains(job="mine", workdir=workdir, checkpoints="", protect=frozenset(), keep=())
    remove(keep)
    assert not workdir.exists()
    assert (precious / "manifest.json").exists()


def test_what_others_keep_in_the_work_folder_stays(tmp_path: Path) -> None:
    workdir = tmp_path / "jobs" / "mine"
    save(workdir / "checkpoints", "mine", 10)
    theirs = save(workdir / "checkpoints", "other", 20)
    deep = workdir / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "theirs.txt").write_text("")
    (workdir / "records").mkdir()
    remains = Remains(
        job="mine", workdir=workdir, checkpoints=str(workdir / "checkpoints"), protect=frozenset(), keep=(deep,)
    )
    remove(remains)
    remove(remains)
    assert theirs.exists()
    assert {path.name for path in workdir.iterdir()} == {"a", "checkpoints"}
    assert len(list((workdir / "checkpoints").iterdir())) == 1
    assert (deep / "theirs.txt").exists()


async def refused(client: Client, name: str) -> None:
    async with asyncio.timeout(20):
        while not [c for c in (await client.job(name)).status.conditions if c.type == "DeletionFailed"]:
            continue


def test_a_deleted_job_is_gone_from_store_disk_and_agents(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client, agent = running.client, await running.agent()
            await client.call("CreateJob", create(spec()))
            job = await client.until_phase("a", "RUNNING")
            agent.report_figures(job.uid, 1, 2)
            await agent.until(lambda: agent.acked.figures_sequence == 1)
            await client.call("CreateJob", create(spec("b")))
            other = await client.job("b")
            with pytest.raises(PreconditionError) as error:
                await client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a"))
            assert error.value.code == "ILLEGAL_TRANSITION"
            assert "--force" in error.value.hint
            request = job_pb2.DeleteJobRequest(name="a", force=True, request_id="d-1")
            assert (await client.call("DeleteJob", request)).uid == job.uid
            await client.until_gone(job.uid)
            assert (await client.call("DeleteJob", request)).uid == job.uid, "the same request again"
            with pytest.raises(NotFoundError):
                await client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a"))
            assert not (tmp_path / "jobs" / job.uid).exists()
            assert (tmp_path / "jobs" / other.uid).exists()
            assert not list((tmp_path / "figures").glob(f"{job.uid}*"))
            await agent.until(lambda: job.uid in agent.deleted_jobs)
            assert (await client.call("CreateJob", create(spec()))).job.uid != job.uid
        async with serving(tmp_path) as running:
            names = {j.uid for j in (await running.client.call("ListJobs", job_pb2.ListJobsRequest())).jobs}
            assert other.uid in names
            assert job.uid not in names
            agent = await running.agent()
            await agent.until(lambda: job.uid in agent.deleted_jobs)

    run(main)


def test_a_deletion_that_is_refused_is_told_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    uids: list[str] = []
    figures = tmp_path / "figures"

    async def first() -> None:
        async with serving(tmp_path) as running:
            await running.client.call("CreateJob", create(spec()))
            job = await cancelled(running.client)
            uids.append(job.uid)
            (figures / f"{job.uid}.jsonl" / "in-the-way").mkdir(parents=True)
            await running.client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a"))
            await refused(running.client, "a")

    run(first)
    os.rmdir(figures / f"{uids[0]}.jsonl" / "in-the-way")
    os.rmdir(figures / f"{uids[0]}.jsonl")

    async def second() -> None:
        async with serving(tmp_path) as running:
            await running.client.until_gone(uids[0])

    run(second)
    assert not (tmp_path / "jobs" / uids[0]).exists()


def test_a_name_that_another_job_has_taken_stays_with_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            await client.call("CreateJob", create(spec()))
            old = await cancelled(client)
            new = (await client.call("CreateJob", create(spec()))).job
            await client.call("DeleteJob", job_pb2.DeleteJobRequest(name=old.uid))
            await client.until_gone(old.uid)
            assert (await client.job("a")).uid == new.uid

    run(main)


def test_requests_are_checked_and_ids_not_used_twice(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            await call("CreateJob", create(spec()))
            for method, request in (
                ("ScaleJob", job_pb2.ScaleJobRequest(name="a")),
                ("PauseJob", job_pb2.PauseJobRequest()),
                ("CordonNode", job_pb2.CordonNodeRequest()),
                ("PauseJob", job_pb2.PauseJobRequest(name="a", request_id="x" * 129)),
            ):
                with pytest.raises(UsageError) as error:
                    await call(method, request)
                assert error.value.hint or method == "ScaleJob"
            for method in ("ScaleJob", "PauseJob", "ResumeJob", "RestartJob", "RollbackJob", "DeleteJob"):
                extra = {"max": 2} if method == "ScaleJob" else {}
                with pytest.raises(NotFoundError):
                    await call(method, getattr(job_pb2, f"{method}Request")(name="nobody", **extra))
            await call("PauseJob", job_pb2.PauseJobRequest(name="a", request_id="r"))
            with pytest.raises(UsageError) as error:
                await call("ResumeJob", job_pb2.ResumeJobRequest(name="a", request_id="r"))
            assert error.value.code == "REQUEST_ID_REUSED"

    run(main)


def test_a_request_takes_effect_once_also_over_a_restart(tmp_path: Path) -> None:
    async def events(client: Client) -> list[str]:
        found = await client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))
        return [event.type for event in found.events]

    async def first() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            await call("CreateJob", create(spec()))
            again = [job_pb2.ScaleJobRequest(name="a", max=3, request_id="s") for _ in range(10)]
            await asyncio.gather(*(call("ScaleJob", request) for request in again))
            assert (await events(running.client)).count("job.scaled") == 1
            await call("ScaleJob", job_pb2.ScaleJobRequest(name="a", max=1, request_id="t"))
            await call("PauseJob", job_pb2.PauseJobRequest(name="a", request_id="p"))
            await running.client.until_phase("a", "PAUSED")

    async def second() -> None:
        async with serving(tmp_path) as running:
            call = running.client.call
            late = await call("ScaleJob", job_pb2.ScaleJobRequest(name="a", max=3, request_id="s"))
            assert late.job.effective_spec.spec.nodes.max == 1, "it had its effect before"
            assert late.job.status.phase == "PAUSED"
            await call("ResumeJob", job_pb2.ResumeJobRequest(name="a"))
            await running.agent()
            await running.client.until_phase("a", "RUNNING")
            assert (await events(running.client)).count("job.scaled") == 2

    run(first)
    run(second)


def test_marks_of_nodes_outlive_the_controller_and_the_agent(tmp_path: Path) -> None:
    async def nodes(client: Client) -> dict[str, job_pb2.NodeStatus]:
        return {n.node: n for n in (await client.call("ListNodes", job_pb2.ListNodesRequest())).nodes}

    async def first() -> None:
        async with serving(tmp_path) as running:
            await running.agent()
            answer = await running.client.call("CordonNode", job_pb2.CordonNodeRequest(node="node-0", drain=True))
            assert (answer.node.cordoned, answer.node.draining) == (True, True)
            with pytest.raises(NotFoundError, match="known nodes: node-0"):
                await running.client.call("CordonNode", job_pb2.CordonNodeRequest(node="node-1"))

    async def second() -> None:
        async with serving(tmp_path) as running:
            await running.agent()
            assert (await nodes(running.client))["node-0"].draining
            await running.client.call("CreateJob", create(spec()))
            waits = await running.client.until("a", lambda job: job.status.reason == "WaitingForCapacity")
            assert waits.status.phase == "QUEUED"
            await running.client.call("UncordonNode", job_pb2.UncordonNodeRequest(node="node-0"))
            await running.client.until_phase("a", "RUNNING")
            found = (await nodes(running.client))["node-0"]
            assert [(job.name, list(job.slots)) for job in found.jobs] == [("a", [0])]

    run(first)
    run(second)


def test_a_pause_and_a_restart_go_through_the_agent(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client, agent = running.client, await running.agent()
            await client.call("CreateJob", create(spec()))
            before = await client.until_phase("a", "RUNNING")
            await client.call("RestartJob", job_pb2.RestartJobRequest(name="a"))
            await client.until_phase("a", "RESTARTING")
            await client.until(
                "a",
                lambda job: (
                    job.status.phase == "RUNNING"
                    and job.status.islands[0].workers[0].incarnation != before.status.islands[0].workers[0].incarnation
                ),
            )
            assert agent.saved == [1]
            await client.call("PauseJob", job_pb2.PauseJobRequest(name="a"))
            paused = await client.until_phase("a", "PAUSED")
            assert paused.status.checkpoint.step == 2
            await agent.until(lambda: not agent.desired)
            shown = json.dumps([event.type for event in (await client.call(
                "ListEvents", job_pb2.ListEventsRequest(name="a"))).events])  # fmt: skip
            assert "job.restart_requested" in shown
            assert "job.paused" in shown

    run(main)


def test_a_job_whose_checkpoint_is_away_stays_paused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            await running.agent()
            await client.call("CreateJob", create(spec()))
            await client.until_phase("a", "RUNNING")
            await client.call("PauseJob", job_pb2.PauseJobRequest(name="a"))
            before = await client.until_phase("a", "PAUSED")
            with pytest.raises(CheckpointError, match="job a stays paused") as error:
                await client.call("ResumeJob", job_pb2.ResumeJobRequest(name="a", request_id="r"))
            assert "resume again" in error.value.hint
            after = await client.job("a")
            assert (after.status.phase, after.revision) == ("PAUSED", before.revision)

    run(main)


def test_a_rollback_to_a_checkpoint_that_is_gone_changes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            await running.agent()
            await client.call("CreateJob", create(spec()))
            await client.until_phase("a", "RUNNING")
            await client.call("RestartJob", job_pb2.RestartJobRequest(name="a"))
            before = await client.until("a", lambda job: job.status.lineage == 2 and job.status.phase == "RUNNING")
            for validate_only in (True, False):
                request = job_pb2.RollbackJobRequest(name="a", to_step=1, validate_only=validate_only, request_id="r")
                with pytest.raises(CheckpointError):
                    await client.call("RollbackJob", request)
            after = await client.job("a")
            assert (after.status.lineage, after.revision) == (before.status.lineage, before.revision)
            assert after.status.checkpoint.step == 1

    run(main)
