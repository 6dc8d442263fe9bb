"""Parts of different versions work together, or say why not: an older and a later wire between today's parts.

Without it a cluster could be upgraded only with every job stopped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from grpc import aio

from compatibility.commands import command
from compatibility.other_versions import UNKNOWN, Filter, OtherVersion, later_filters, old_filters
from trainctl.protos.v1 import agent_pb2, job_pb2, records_pb2
from trainctl.protos.version import call_metadata, package_version
from unit.controller.controller_harness import Client, FakeAgent, Running, create, run, serving, spec

VERSIONS = pytest.mark.parametrize("filters", [old_filters, later_filters], ids=["an older one", "a later one"])
Filters = Callable[[str], tuple[Filter, Filter] | None]


def job_file(folder: Path) -> str:
    job = {"metadata": {"name": "a"}, "spec": {"command": ["true"], "nodes": {"min": 1, "max": 1}}}
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return str(path)


def mixed(folder: Path, filters: Filters, body: Callable[[Running, str], Awaitable[None]], **wire: str) -> None:
    """Runs ``body`` with a controller and the address at which another version stands before it."""

    async def main() -> None:
        async with serving(folder) as running:
            with OtherVersion(running.controller.address, filters, **wire) as other:
                await body(running, other.address)

    run(main)


@VERSIONS
def test_the_command_line_and_a_controller(tmp_path: Path, filters: Filters) -> None:
    """Both ways at once: what is asked and what is answered passes the other version."""

    async def body(running: Running, address: str) -> None:
        agent = await running.agent()
        for words, wanted in (
            (("submit", "-f", job_file(tmp_path)), "a"),
            (("submit", "-f", job_file(tmp_path), "--name", "b", "--request-id", "r"), "b"),
            (("get", "jobs"), "a"),
            (("describe", "a"), "a"),
            (("explain", "a"), "a"),
            (("get", "nodes"), "node-0"),
            (("cancel", "a", "-y"), ""),
            (("events", "a"), "cancel"),
        ):
            code, said = await command(tmp_path, address, *words)
            assert code == 0, said
            assert wanted in said, said
        await agent.disconnect()

    mixed(tmp_path, filters, body)


@VERSIONS
def test_an_agent_and_a_controller(tmp_path: Path, filters: Filters) -> None:
    async def body(running: Running, address: str) -> None:
        async with aio.insecure_channel(address) as channel:
            agent = FakeAgent(Client(channel, running.client.metadata), "node-0", 2)
            await agent.register()
            agent.connect()
            await running.client.call("CreateJob", create(spec(per_node=2)))
            job = await running.client.until_phase("a", "RUNNING")
            assert (job.status.islands[0].generation, len(job.status.islands[0].workers)) == (1, 2)
            await running.client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
            await running.client.until_phase("a", "CANCELLED")
            await agent.disconnect()

    mixed(tmp_path, filters, body)


def test_a_method_that_the_older_one_has_not_is_said_so(tmp_path: Path) -> None:
    async def body(running: Running, address: str) -> None:
        code, said = await command(tmp_path, address, "tokens", "list")
        assert code != 0
        assert "older" in said
        assert "Traceback" not in said

    mixed(tmp_path, old_filters, body)


def test_another_wire_version_is_refused_with_a_sentence(tmp_path: Path) -> None:
    async def body(running: Running, address: str) -> None:
        code, said = await command(tmp_path, address, "get", "jobs")
        assert code != 0
        assert "expected wire version 1" in said
        assert "VERSION_MISMATCH" in said

    mixed(tmp_path, later_filters, body, wire="2")


def test_fields_that_nobody_knows_are_ignored_and_missing_ones_have_their_defaults() -> None:
    named = records_pb2.TrainJob(metadata=records_pb2.JobMetadata(name="a"))
    assert records_pb2.TrainJob.FromString(named.SerializeToString() + UNKNOWN).metadata.name == "a"
    (ask, answer) = old_filters("/trainctl.v1.AgentService/Register") or (bytes, bytes)
    newest = agent_pb2.RegisterRequest(node="n", slots=3, wire_version=1)
    assert agent_pb2.RegisterRequest.FromString(ask(newest.SerializeToString() + UNKNOWN)) == newest
    old: Any = agent_pb2.RegisterResponse.FromString(answer(b""))
    assert old.heartbeat_s == 0


def test_what_is_no_word_in_any_version_is_refused_by_name_and_hurts_nobody_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            other = await running.agent("node-1")
            agent = await running.agent("node-0")
            worker = records_pb2.WorkerObserved(job_uid="u", slot=0, incarnation=1, phase="deep thought!")
            agent.send(observed=agent_pb2.AgentObserved(sequence=9, workers=[worker]))
            error = await agent.ended()
            assert error is not None
            for part in ("node-0", "trainctl test", "WorkerObserved.phase", "deep thought!", package_version()):
                assert part in str(error.details())
            other.observe()
            await other.disconnect()

    run(main)


def test_metadata_says_who_speaks() -> None:
    assert dict(call_metadata("t"))["x-trainctl-wire"] == "1"
