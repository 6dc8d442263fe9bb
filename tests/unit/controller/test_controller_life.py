"""A controller's life and the next one: nothing is lost, nobody is disturbed, and a deposed one stops.

Without it a restart of the controller could lose jobs or disturb those that run.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from trainctl.controller import keys
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.reconcile import reconcile
from trainctl.controller.store.port import Delete, StoreUnavailableError
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import ConflictError, FencedError, TrainctlError
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import Running, create, run, serving, spec


async def events_of(running: Running, name: str) -> list[tuple[int, str]]:
    events = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name=name))).events
    return [(event.revision, event.type) for event in events]


def test_a_restart_loses_nothing_and_disturbs_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            agent = await running.agent()
            uid = (await running.client.call("CreateJob", create(spec(), "r-1"))).job.uid
            await running.client.until_phase("a", "RUNNING")
            agent.report_figures(uid, 1, 2, 3)
            await agent.until(lambda: agent.acked.figures_sequence == 1)
            before = await running.client.job("a")
            events = await events_of(running, "a")
            desired, address, epoch = agent.desired, running.controller.address, running.controller.leadership.epoch
            await agent.disconnect()
        async with serving(tmp_path) as running:
            assert running.controller.address == address
            assert running.controller.leadership.epoch == epoch + 1
            status = (await running.client.job("a")).status
            assert (status.step, status.tokens) == (3, 300)
            agent.client = running.client
            agent.desired = ()
            agent.connect()
            await agent.until(lambda: bool(agent.desired))
            assert agent.desired == desired
            after = await running.client.job("a")
            assert (after.uid, after.status.phase) == (before.uid, "RUNNING")
            assert after.status.islands[0].generation == before.status.islands[0].generation
            assert [w.incarnation for w in after.status.islands[0].workers] == [
                w.incarnation for w in before.status.islands[0].workers
            ]
            assert (await events_of(running, "a"))[: len(events)] == events
            assert (await running.client.call("CreateJob", create(spec(), "r-1"))).job.uid == uid
            agent.report_figures(uid, 4, sequence=1)
            await running.client.until("a", lambda job: job.status.step == 4)

    run(main)


def test_one_whose_leader_key_is_gone_writes_nothing_and_stops(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            store: Any = running.controller.leadership._store
            await store.txn((), (Delete(keys.LEADER),))
            with pytest.raises(FencedError):
                await running.client.call("CreateJob", create(spec()))
            with pytest.raises(FencedError):
                await asyncio.wait_for(running.controller.failed, 10)
            assert not (await store.range(keys.JOBS)).items

    run(main)


def test_a_job_whose_reconcile_raises_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    healthy = reconcile
    broken = True

    def sometimes(state: JobState, *rest: Any) -> Any:
        if broken and state.name == "bad":
            raise ZeroDivisionError("a bug of ours")
        return healthy(state, *rest)

    monkeypatch.setattr("trainctl.controller.reconciler.reconcile", sometimes)

    async def main() -> None:
        nonlocal broken
        async with serving(tmp_path) as running:
            client = running.client
            await running.agent()
            await client.call("CreateJob", create(spec("bad", profile="patient")))
            shown = await client.until("bad", lambda job: bool(job.status.conditions))
            assert "a bug of ours" in shown.status.conditions[0].message
            await client.call("CreateJob", create(spec("good", profile="patient")))
            await client.until_phase("good", "RUNNING")
            broken = False
            await client.until_phase("bad", "RUNNING")
            assert not (await client.job("bad")).status.conditions

    run(main)


def test_a_transaction_of_unknown_outcome_is_looked_up(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client = running.client
            store: Any = running.controller.leadership._store
            real, calls = store.txn, 0

            async def unsure(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls % 3 == 1:
                    raise StoreUnavailableError("lost before it arrived")
                result = await real(*arguments)
                if calls % 3 == 2:
                    raise StoreUnavailableError("lost after it was applied")
                return result

            await running.agent()
            await client.call("CreateJob", create(spec()))
            store.txn = unsure
            try:
                await client.until_phase("a", "RUNNING")
            finally:
                store.txn = real
            revisions = [revision for revision, _ in await events_of(running, "a")]
            assert revisions == list(range(1, len(revisions) + 1))
            assert calls >= 3, "one was lost before, one after it was applied, and one was answered"

    run(main)


def test_a_second_controller_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            with pytest.raises(ConflictError, match="in use by process"):
                async with serving(tmp_path):
                    pass
            host, _, port = running.controller.address.rpartition(":")
            with pytest.raises(ConflictError, match="cannot listen"):
                async with serving(tmp_path / "other", host=host, port=int(port)):
                    pass

    run(main)


def test_controller_file_and_token(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            data = json.loads((tmp_path / "controller.json").read_text())
            assert data["address"] == running.controller.address
            assert {"pid", "start_ticks", "version", "metrics_address", "started_s"} <= set(data)
            assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600

    run(main)


def test_metrics_are_served(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.agent()
            for _ in range(2):
                await running.client.call("CreateJob", create(spec()))
                await running.client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
                await running.client.until_phase("a", "CANCELLED")

            def fetch() -> str:
                with urlopen(f"http://{running.controller.metrics_address}/metrics", timeout=10) as reply:
                    text: str = reply.read().decode()
                return text

            text = await asyncio.to_thread(fetch)
            assert 'trainctl_job_phase{job_name="a",phase="CANCELLED"} 1.0' in text
            assert text.count('trainctl_job_phase{job_name="a",phase="CANCELLED"}') == 1
            assert "trainctl_leader_epoch{" in text
            assert 'grpc_method="CreateJob"' in text
            assert 'trainctl_store_request_seconds_count{op="txn"}' in text
            assert "trainctl_job_step{" not in text
            assert "_created" not in text

    run(main)


def test_a_damaged_value_is_one_clear_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.client.call("CreateJob", create(spec()))
        store = await SqliteStore.open(tmp_path / "store.sqlite3")
        (item,) = [i for i in (await store.range(keys.JOBS)).items if i.key.endswith(keys.STATUS)]
        await store.close()
        assert JobState.from_wire(keys.decode(item.value)).name == "a"
        with pytest.raises(TrainctlError, match="format"):
            keys.decode(b"x{}")

    run(main)
