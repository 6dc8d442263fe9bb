"""Controllers of two versions over one store, as processes: an upgrade while a job runs, and what does not go back.

Without it an upgrade of the controllers could lose jobs, or be gone back from where that destroys them.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from grpc import aio

from compatibility import older_controller
from compatibility.commands import command
from compatibility.other_versions import OtherVersion, old_filters
from etcd_store.controllers import TOKEN, ControllerProcess, answers
from etcd_store.running import opened, run
from etcd_store.servers import EtcdCluster
from trainctl.controller import keys
from trainctl.controller.installation import SCHEMA, NewerStoreError, OldStoreError
from trainctl.controller.store.port import StateStore
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.protos.v1 import job_pb2
from trainctl.protos.version import call_metadata, package_version
from unit.controller.controller_harness import Client, FakeAgent, create, spec

TESTS = Path(__file__).parent.parent
OLDER = "compatibility.older_controller"


def process(folder: Path, store: str, *, older: bool = False) -> ControllerProcess:
    patience = ("--lease-ttl", "60s")  # nobody is followed because the machine is busy
    if not older:
        return ControllerProcess(folder, store, patience)
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return ControllerProcess(folder, store, patience, environment={"PYTHONPATH": paths}, module=OLDER)


@asynccontextmanager
async def client_of(address: str) -> AsyncIterator[Client]:
    async with aio.insecure_channel(address) as channel:
        yield Client(channel, call_metadata(TOKEN))


async def leads(one: ControllerProcess) -> str:
    """Its address, as soon as it leads."""
    while True:
        address = one.address
        led = await asyncio.to_thread(answers, address) if address else False
        if led:
            return address
        assert one.process is not None
        assert one.process.poll() is None, one.log
        await asyncio.sleep(0.02)


async def says(one: ControllerProcess, text: str) -> None:
    while text not in one.log:  # noqa: ASYNC110 - a process's log
        await asyncio.sleep(0.02)


async def epoch(address: str) -> tuple[str, int]:
    """Version and epoch of whoever leads there."""
    async with client_of(address) as client:
        found = await client.call("GetVersion", job_pb2.GetVersionRequest())
        return found.version, found.epoch


async def installation(store: StateStore) -> tuple[int, str]:
    """Schema and version that the store says it was written by."""
    found = await store.get(keys.INSTALLATION)
    assert found is not None
    value = keys.decode(found.value)
    return value["schema"], value["version"]


async def begin_job(client: Client) -> FakeAgent:
    agent = FakeAgent(client, "node-0", 2)
    await agent.register()
    agent.connect()
    await client.call("CreateJob", create(spec(per_node=2)))
    await client.until_phase("a", "RUNNING")
    return agent


async def runs_on(agent: FakeAgent, client: Client) -> list[tuple[int, str]]:
    """The agent's job is as it was, and its history without a gap; number and type of its events."""
    agent.client = client
    agent.connect()
    await agent.until(lambda: agent.acked.sequence > 0)
    job = await client.until_phase("a", "RUNNING")
    assert (job.status.islands[0].generation, job.status.restarts) == (1, 0)
    events = (await client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
    assert [event.revision for event in events] == list(range(1, len(events) + 1))
    assert [event.type for event in events].count("generation.committed") == 1
    return [(event.revision, event.type) for event in events]


async def told(folder: Path, address: str) -> None:
    """The command line, asking whoever is at ``address``."""
    (folder / "token").write_text(TOKEN)
    for words in (("describe", "a"), ("events", "a")):
        code, said = await command(folder, address, *words)
        assert code == 0, said
        assert "node-0" in said


def test_an_upgrade_beside_one_etcd_while_a_job_runs(tmp_path: Path) -> None:
    async def body(etcd: EtcdCluster) -> None:
        where = etcd.address(prefix="/mixed")
        old = process(tmp_path / "old", where, older=True)
        new = process(tmp_path / "new", where)
        waiting = process(tmp_path / "waiting", where, older=True)
        try:
            async with opened(where) as store:
                await upgrade(store, old, new, waiting)
        finally:
            for one in (old, new, waiting):
                one.kill()

    async def upgrade(
        store: StateStore, old: ControllerProcess, new: ControllerProcess, waiting: ControllerProcess
    ) -> None:
        old.start()
        former = await leads(old)
        for one in (new, waiting):
            one.start()
        with OtherVersion(former, old_filters) as before:  # new client and agent, old leader
            async with client_of(before.address) as client:
                agent = await begin_job(client)
                assert await epoch(before.address) == (older_controller.VERSION, 1)
                await told(tmp_path, before.address)
                await agent.disconnect()
        assert await installation(store) == (SCHEMA - 1, older_controller.VERSION)
        for one in (new, waiting):
            await says(one, "standing by")

        waiting.send(signal.SIGSTOP)  # so that it is the new one's turn
        old.send(signal.SIGTERM)
        assert await asyncio.to_thread(old.wait) == 0
        address = await leads(new)
        assert f"the state store is brought to schema {SCHEMA}" in new.log
        assert await installation(store) == (SCHEMA, package_version())
        with OtherVersion(address, old_filters) as after:  # old client and agent, new leader
            async with client_of(after.address) as client:
                events = await runs_on(agent, client)
                await told(tmp_path, after.address)
                await agent.disconnect()

        old.start()  # nobody told whoever starts it again
        refused = await asyncio.to_thread(old.wait)
        check_refusal(refused, old)
        assert await epoch(address) == (package_version(), 2)

        waiting.send(signal.SIGCONT)
        new.send(signal.SIGTERM)
        assert await asyncio.to_thread(new.wait) == 0
        check_refusal(await asyncio.to_thread(waiting.wait), waiting)  # its turn came
        assert await installation(store) == (SCHEMA, package_version())
        new.start()
        async with client_of(await leads(new)) as client:
            assert (await runs_on(agent, client))[: len(events)] == events
            await agent.disconnect()
        assert (await epoch(new.address))[1] == 3

    with EtcdCluster(tmp_path / "etcd") as etcd:
        run(lambda: body(etcd))


def check_refusal(code: int, one: ControllerProcess) -> None:
    """It ended, with one error that says who wrote the store and what can be done."""
    assert code == NewerStoreError.exit_code
    errors = [line for line in one.log.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    for part in (f"trainctl {package_version()}", older_controller.VERSION, f"schema {SCHEMA}", "STORE_NEWER"):
        assert part in errors[0]
    assert "hint: use that version or a newer one; nothing was changed" in one.log
    assert "Traceback" not in one.log


def test_an_upgrade_of_one_controller_with_a_file(tmp_path: Path) -> None:
    """It is ended and started again in the newer version; the older one is refused, but with the store from before."""
    file, backup = tmp_path / "store.sqlite3", tmp_path / "backup"
    old = process(tmp_path / "run", f"file:{file}", older=True)
    new = process(tmp_path / "run", f"file:{file}")

    async def body() -> None:
        old.start()
        former = await leads(old)
        async with client_of(former) as client:
            agent = await begin_job(client)
            await agent.disconnect()
        old.send(signal.SIGTERM)
        assert await asyncio.to_thread(old.wait) == 0
        shutil.copy(file, backup)
        new.start()
        assert await leads(new) == former  # where agents look for it
        async with client_of(former) as client:
            events = await runs_on(agent, client)
            await agent.disconnect()
        assert await epoch(former) == (package_version(), 2)
        new.send(signal.SIGTERM)
        assert await asyncio.to_thread(new.wait) == 0
        before = file.read_bytes()
        old.start()
        check_refusal(await asyncio.to_thread(old.wait), old)
        assert file.read_bytes() == before
        new.start()
        await leads(new)
        async with client_of(former) as client:
            assert (await runs_on(agent, client))[: len(events)] == events
            await agent.disconnect()
        new.send(signal.SIGTERM)
        assert await asyncio.to_thread(new.wait) == 0
        store = await SqliteStore.open(file)
        assert await installation(store) == (SCHEMA, package_version())
        await store.close()
        await go_back(agent)

    async def go_back(agent: FakeAgent) -> None:
        """The way back: the store as it was before, accepted by somebody."""
        shutil.copy(backup, file)
        (old.folder / "log").write_text("")
        old.start()
        assert await asyncio.to_thread(old.wait) == OldStoreError.exit_code
        assert "STORE_WENT_BACK" in old.log
        assert "--accept-store" in old.log
        old.flags = (*old.flags, "--accept-store")
        old.start()
        address = await leads(old)
        async with client_of(address) as client:
            await runs_on(agent, client)
            await agent.disconnect()
        assert (await epoch(address))[0] == older_controller.VERSION

    try:
        run(body)
    finally:
        old.kill()
        new.kill()
