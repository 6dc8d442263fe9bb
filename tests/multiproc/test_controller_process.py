"""The controller as a process: how it starts, refuses to start, and ends.

Without it a controller could half start, lose a decision with its life, or end without a reason.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from grpc import aio

from multiproc.armed_faults import ArmedFaults, fault
from multiproc.controller_process import command, started
from trainctl.protos.v1 import job_pb2
from trainctl.protos.version import call_metadata
from unit.controller.controller_harness import Client, FakeAgent, create, spec
from waiting import PATIENCE_S

pytestmark = pytest.mark.multiproc


@pytest.mark.parametrize("point", ["controller.before_txn", "controller.after_txn"])
def test_killed_beside_the_transaction_that_commits_a_generation(tmp_path: Path, point: str) -> None:
    faults = ArmedFaults(tmp_path / "faults", [fault(point, event="generation.committed")])

    async def submit_and_die(data: dict[str, Any]) -> FakeAgent:
        async with aio.insecure_channel(data["address"]) as channel:
            client = Client(channel, call_metadata((tmp_path / "token").read_text().strip()))
            agent = FakeAgent(client, "node-0", 2)
            await agent.register()
            agent.connect()
            await client.call("CreateJob", create(spec(per_node=2)))
            assert await agent.ended() is not None
            return agent

    async def go_on(data: dict[str, Any], agent: FakeAgent) -> None:
        async with aio.insecure_channel(data["address"]) as channel:
            agent.client = Client(channel, agent.client.metadata)
            agent.connect()
            job = await agent.client.until_phase("a", "RUNNING")
            assert job.status.islands[0].generation == 1
            assert {w.incarnation for w in job.status.islands[0].workers} == {i for _, i in agent.workers}
            request = job_pb2.ListEventsRequest(name="a")
            events = (await agent.client.call("ListEvents", request)).events
            assert [event.revision for event in events] == list(range(1, len(events) + 1))
            assert [event.type for event in events].count("generation.committed") == 1
            await agent.disconnect()

    with started(tmp_path, env=faults.environment) as (process, data):
        agent = asyncio.run(submit_and_die(data))
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    faults.check()
    with started(tmp_path) as (_, data):
        asyncio.run(go_on(data, agent))


def store_in(path: Path) -> tuple[str, str]:
    return "--store", f"file:{path}"


def refused(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(folder, *arguments), capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def assert_one_clear_line(done: subprocess.CompletedProcess[str], exit_code: int, *words: str) -> None:
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == exit_code, done.stderr
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    for word in words:
        assert word in lines[0]


def test_it_says_where_it_listens_and_ends_in_order(tmp_path: Path) -> None:
    with started(tmp_path) as (process, data):
        assert data["pid"] == process.pid
        host, _, port = data["address"].rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5):
            pass
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_start_up_is_quick(tmp_path: Path) -> None:
    def cpu_s() -> float:
        with started(tmp_path) as (process, _):
            process.kill()
            _, _, used = os.wait4(process.pid, 0)
        return used.ru_utime + used.ru_stime

    # Processor time, not wall time: a busy machine lets it wait, and gives it no more to do. 0.45 s is usual.
    used_s = [cpu_s() for _ in range(3)]
    assert min(used_s) < 1.0, used_s


def test_after_sigkill_the_next_one_takes_the_same_port_and_a_greater_epoch(tmp_path: Path) -> None:
    with started(tmp_path) as (process, first):
        process.kill()
        process.wait(PATIENCE_S)
    with started(tmp_path) as (_, second):
        assert second["address"] == first["address"]
        assert second["pid"] != first["pid"]


def test_a_second_one_in_the_folder_is_refused(tmp_path: Path) -> None:
    with started(tmp_path) as (process, _):
        assert_one_clear_line(refused(tmp_path), 4, str(process.pid))


def test_a_store_that_is_in_use_is_refused(tmp_path: Path) -> None:
    with started(tmp_path / "one", *store_in(tmp_path / "store")) as (process, _):
        assert_one_clear_line(refused(tmp_path / "two", *store_in(tmp_path / "store")), 4, str(process.pid))


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_clear_line(refused(tmp_path, "--listen", f"127.0.0.1:{port}"), 4, str(port))
        assert_one_clear_line(refused(tmp_path, "--metrics-port", str(port)), 4, str(port))


def test_a_folder_or_store_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_clear_line(refused(tmp_path / "file" / "run"), 5, "file")
    assert_one_clear_line(refused(tmp_path / "run", *store_in(tmp_path / "no" / "store")), 5, "store")
    (tmp_path / "foreign").write_text("this is no store\n" * 200)
    assert_one_clear_line(refused(tmp_path / "run", *store_in(tmp_path / "foreign")), 6, "foreign")


@pytest.mark.parametrize("arguments", [("--listen", "nowhere"), ("--agents", "-1"), ("--respawn-delay", "soon")])
def test_wrong_usage_is_refused(tmp_path: Path, arguments: tuple[str, str]) -> None:
    done = refused(tmp_path, *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--listen", "0.0.0.0:0"), ("--listen 0.0.0.0", "not encrypted")),
        (("--store", "etcd://10.0.0.1:2379,127.0.0.1:2379/x"), ("10.0.0.1:2379", "not be encrypted")),
        (("--store", "etcd://me:secret@127.0.0.1:2379"), ("password",)),
        (("--store", "redis://127.0.0.1"), ("file:PATH or etcd://",)),
        (("--lease-ttl", "10ms"), ("at least 1s",)),
    ],
)
def test_what_would_be_read_or_never_work_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    assert_one_clear_line(refused(tmp_path, *arguments), 2, *words)


def test_an_agent_does_not_send_its_token_over_a_network_unless_told() -> None:
    command = [sys.executable, "-m", "trainctl.agent", "--controller", "127.0.0.1:1,10.0.0.1:7070"]
    options = ["--node", "n", "--dir", "/nonexistent"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert_one_clear_line(done, 2, "10.0.0.1:7070", "not be encrypted")


def test_an_etcd_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    done = refused(tmp_path, "--store", "etcd://127.0.0.1:1,127.0.0.1:2/x")
    assert_one_clear_line(done, 7, "etcd 127.0.0.1:", "no answer")
