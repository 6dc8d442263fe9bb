"""The audit log: what is in it, in which order, and that nothing is missing whatever happens.

Without it a change could be made that nobody can be asked about.
"""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any, cast

import pytest

from trainctl.controller import keys
from trainctl.controller.access import audit_log
from trainctl.controller.access.audit_log import AuditLog
from trainctl.controller.access.audit_record import AuditRecord, address_of, draft, host_of
from trainctl.controller.access.caller import Caller, Kind
from trainctl.controller.leadership import Candidate, Leadership
from trainctl.controller.store.port import Put, StoreFullError, StoreUnavailableError
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.system.faults import FaultPlan
from trainctl.protos.v1 import access_pb2, job_pb2
from unit.access.api import methods, own, token_for, with_token
from unit.controller.controller_harness import Running, create, run, serving, spec

ANN = Caller(kind=Kind.PERSON, name="ann", token_id="0123abcd")


class Counts(dict[str, float]):
    def inc(self, name: str, amount: float = 1, **labels: str) -> None:
        self[labels["state"]] = self.get(labels["state"], 0) + amount


class Audited:
    """An audit log over a real store, with a clock of the test's own."""

    def __init__(self, store: SqliteStore, leadership: Leadership) -> None:
        self.now_s = 1000.0
        self.store = store
        self.counts = Counts()
        self.log = AuditLog(store, leadership, now_s=lambda: self.now_s, counter=self.counts, faults=FaultPlan())

    @classmethod
    async def open(cls, path: Path) -> Audited:
        store = await SqliteStore.open(path)
        audited = cls(store, await Leadership.take(store, Candidate(holder="test")))
        await audited.log.load()
        return audited

    async def records(self) -> list[AuditRecord]:
        found, _ = await self.log.read(after=0, limit=0)
        return list(found)


def asked(method: str = "PauseJob") -> AuditRecord:
    return draft(
        ANN, peer="ipv4:10.0.0.7:1234", method=f"x/{method}", tenant="research", subject="job-a", request_id="r"
    )


def test_peers_as_people_write_them() -> None:
    assert address_of("ipv4:10.0.0.7:1234") == "10.0.0.7:1234"
    assert address_of("ipv6:%5B::1%5D:1234") == "[::1]:1234"
    assert address_of("unix:/run/x") == "unix:/run/x"
    assert (host_of("ipv4:10.0.0.7:1234"), host_of("ipv6:%5B::1%5D:1234")) == ("10.0.0.7", "[::1]")


def test_what_comes_with_a_call_cannot_spoil_the_record() -> None:
    record = draft(ANN, peer="p" * 1000, method="a/B", tenant="t" * 999, subject="a\x1b[0m\nb", request_id="é" * 999)
    assert len(record.tenant) == 200
    assert record.subject == "a?[0m?b"
    assert len(record.request_id) == 200
    assert len(record.peer) <= 200


def test_a_change_is_there_before_it_is_made_and_complete_afterwards(tmp_path: Path) -> None:
    async def main() -> None:
        audited = await Audited.open(tmp_path / "store")
        record = await audited.log.begin(asked())
        assert await audited.records() == [record]
        assert (record.number, record.outcome, record.epoch, record.time_s) == (1, "", 1, 1000.0)
        audited.now_s = 1002.0
        audited.log.end(record, "OK")
        await audited.log.flush()
        (done,) = await audited.records()
        assert (done.outcome, done.done_s, done.time_s, done.name, done.token_id) == (
            "OK",
            1002.0,
            1000.0,
            "ann",
            "0123abcd",
        )
        await audited.store.close()

    run(main)


def test_numbers_have_no_gap_whatever_the_store_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        audited = await Audited.open(tmp_path / "store")
        txn, ways = audited.store.txn, iter(["ok", "lost", "applied", "ok", "lost", "ok", "applied", "ok"] * 20)

        async def faulty(compares: Any, operations: Any) -> Any:
            way = next(ways)
            if way == "lost":
                raise StoreUnavailableError("no answer")
            result = await txn(compares, operations)
            if way == "applied":
                raise StoreUnavailableError("no answer")
            return result

        monkeypatch.setattr(audited.store, "txn", faulty)
        for index in range(60):
            if index % 3:
                audited.log.note(asked("GetJob"), "PERMISSION_DENIED", sort="refusal")
            try:
                audited.log.end(await audited.log.begin(asked()), "OK")
                await audited.log.flush()
            except StoreUnavailableError:
                pass
        monkeypatch.undo()
        last = await audited.log.begin(asked("ScaleJob"))
        audited.log.end(last, "OK")
        await audited.log.flush()
        records = await audited.records()
        assert [record.number for record in records] == list(range(1, len(records) + 1))
        assert sum(record.method == "GetJob" for record in records) == 40
        assert all(record.outcome for record in records)
        assert sum(record.outcome == "UNAVAILABLE" for record in records) >= 3
        await audited.store.close()

    run(main)


def test_what_was_begun_by_a_leader_that_died_is_marked_by_the_next(tmp_path: Path) -> None:
    async def main() -> None:
        first = await Audited.open(tmp_path / "store")
        lost = await first.log.begin(asked("DeleteJob"))
        first.log.end(await first.log.begin(asked()), "OK")
        await first.log.flush()
        await first.store.close()
        second = await Audited.open(tmp_path / "store")
        going_on = await second.log.begin(asked("ScaleJob"))
        assert going_on.number == 3
        running = asyncio.create_task(second.log.run())
        async with asyncio.timeout(10):
            while (await second.records())[0].outcome != "UNKNOWN":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        running.cancel()
        records = await second.records()
        assert [(r.number, r.method, r.outcome) for r in records] == [
            (lost.number, "DeleteJob", "UNKNOWN"), (2, "PauseJob", "OK"), (3, "ScaleJob", "")
        ]  # fmt: skip
        await second.store.close()

    run(main)


def test_old_records_and_too_many_go_from_the_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log, "MOST_RECORDS", 100)

    async def main() -> None:
        audited = await Audited.open(tmp_path / "store")
        for index in range(300):
            audited.now_s = 1000.0 + index
            audited.log.end(await audited.log.begin(asked()), "OK")
        await audited.log.flush()
        await audited.log.tidy()
        assert [record.number for record in await audited.records()] == list(range(201, 301))
        audited.now_s = 1250.0 + audit_log.KEPT_S
        await audited.log.tidy()
        assert [record.number for record in await audited.records()] == list(range(251, 301))
        audited.now_s += 1000.0
        await audited.log.tidy()
        assert await audited.records() == []
        assert (await audited.log.begin(asked())).number == 301
        await audited.store.close()

    run(main)


def test_a_flood_of_refusals_is_counted_not_kept(tmp_path: Path) -> None:
    async def main() -> None:
        audited = await Audited.open(tmp_path / "store")
        for _ in range(10_000):
            audited.log.note(asked("GetJob"), "PERMISSION_DENIED", "why", sort="refusal")
        audited.log.note(asked("Register"), "OK", sort="agent")
        await audited.log.flush()
        assert len(await audited.records()) == audit_log.OFTEN.burst + 1
        audited.now_s += 10.0
        audited.log.note(asked("GetJob"), "PERMISSION_DENIED", sort="refusal")
        await audited.log.flush()
        assert (await audited.records())[-1].left_out == 10_000 - audit_log.OFTEN.burst
        assert audited.counts["left_out"] == 10_000 - audit_log.OFTEN.burst
        await audited.store.close()

    run(main)


def test_a_full_store_stops_no_change_and_takes_no_refusals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def full(compares: Any, operations: Any) -> Any:
        raise StoreFullError("no room")

    async def main() -> None:
        audited = await Audited.open(tmp_path / "store")
        monkeypatch.setattr(audited.store, "txn", full)
        record = await audited.log.begin(asked("DeleteJob"))
        assert record.number == 0
        audited.log.end(record, "OK")
        monkeypatch.undo()
        caplog.set_level(logging.INFO)
        assert (await audited.log.begin(asked())).number == 1
        assert audited.counts["not_stored"] == 1
        monkeypatch.setattr(SqliteStore, "capacity_bytes", 1)
        audited.log.note(asked("GetJob"), "PERMISSION_DENIED", sort="refusal")
        await audited.log.flush()
        assert [one.method for one in await audited.records()] == ["PauseJob"]
        await audited.store.close()

    run(main)


async def shown(running: Running, **wanted: Any) -> list[access_pb2.AuditRecord]:
    answer = await own(running).by_name("ListAudit", access_pb2.ListAuditRequest(**wanted))
    return list(answer.records)


def test_calls_are_in_it_with_who_what_and_how_it_ended(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            ann = await token_for(running, "ann", ("research", "submitter"))
            api = with_token(running, ann)
            job = spec() | {"metadata": {"name": "a", "tenant": "research"}}
            await api.by_name("CreateJob", create(job, validate_only=True))
            await api.by_name("CreateJob", create(job, "r-1"))
            await api.by_name("GetJob", job_pb2.GetJobRequest(name="a"))
            resume = next(method for method in methods() if method.name == "ResumeJob")
            assert await api.refusal(resume, job_pb2.ResumeJobRequest(name="a", request_id="r-2")) is not None
            cordon = next(method for method in methods() if method.name == "CordonNode")
            assert await api.refusal(cordon, job_pb2.CordonNodeRequest(node="node-0")) is not None
            agent = await running.agent()
            records = await shown(running)
            assert [(r.name, r.method, r.tenant, r.subject, r.request_id, r.outcome) for r in records] == [
                ("local", "CreateToken", "", "ann", "", "OK"),
                ("ann", "CreateJob", "research", "a", "r-1", "OK"),
                ("ann", "ResumeJob", "research", "a", "r-2", "FAILED_PRECONDITION"),
                ("ann", "CordonNode", "", "node-0", "", "PERMISSION_DENIED"),
                ("local", "Register", "", "node-0", "", "OK"),
            ]
            assert [record.number for record in records] == [1, 2, 3, 4, 5]
            assert {record.epoch for record in records} == {running.controller.leadership.epoch}
            assert all(record.peer.startswith("127.0.0.1:") and record.time_s <= record.done_s for record in records)
            assert {record.token_id for record in records if record.name == "ann"} == {ann.split("_")[1]}
            assert "needs the role operator in all tenants" in records[3].reason
            assert [r.method for r in await shown(running, who="ann", subject="a")] == ["CreateJob", "ResumeJob"]
            assert [r.number for r in await shown(running, limit=2)] == [1, 2]
            assert [r.number for r in await shown(running, limit=2, after=2)] == [3, 4]
            assert await shown(running, since_s=records[-1].time_s + 100) == []
            lines = [json.loads(json.dumps(cast("Any", r).audit)) for r in caplog.records if hasattr(r, "audit")]
            assert [line["method"] for line in lines] == [r.method for r in records]
            await agent.disconnect()

    caplog.set_level(logging.INFO)
    run(main)


def test_an_admin_of_a_tenant_reads_what_is_about_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            boss = with_token(running, await token_for(running, "boss", ("research", "admin")))
            for tenant in ("research", "other"):
                job = spec() | {"metadata": {"name": f"in-{tenant}", "tenant": tenant}}
                await own(running).by_name("CreateJob", create(job))
            records = (await boss.by_name("ListAudit", access_pb2.ListAuditRequest())).records
            assert [record.subject for record in records] == ["in-research"]

    run(main)


def test_a_change_that_cannot_be_written_down_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            await running.client.call("CreateJob", create(spec()))
            store = cast("Any", running.controller.leadership)._store
            txn = store.txn

            async def deaf(compares: Any, operations: Any) -> Any:
                if any(operation.key.startswith(keys.AUDIT) for operation in operations):
                    raise StoreUnavailableError("no answer")
                return await txn(compares, operations)

            monkeypatch.setattr(store, "txn", deaf)
            pause = next(method for method in methods() if method.name == "PauseJob")
            error = await own(running).refusal(pause, job_pb2.PauseJobRequest(name="a"))
            assert error is not None
            assert error.code == "STORE_UNAVAILABLE"
            assert (await running.client.job("a")).status.phase == "QUEUED"
            monkeypatch.undo()
            await own(running).by_name("PauseJob", job_pb2.PauseJobRequest(name="a"))
            assert [(r.number, r.method) for r in await shown(running)] == [(1, "CreateJob"), (2, "PauseJob")]

    run(main)


def test_a_damaged_record_is_shown_as_such_and_harms_no_other(tmp_path: Path) -> None:
    async def main() -> None:
        audited = await Audited.open(tmp_path / "store")
        for _ in range(3):
            audited.log.end(await audited.log.begin(asked()), "OK")
        await audited.log.flush()
        await audited.store.txn((), (Put(keys.audit(2), b"j[1, 2"),))
        records = await audited.records()
        assert [(record.number, record.outcome) for record in records] == [(1, "OK"), (2, "UNREADABLE"), (3, "OK")]
        assert keys.audit(2) in records[1].reason
        await audited.log.tidy()
        await audited.store.close()

    run(main)
