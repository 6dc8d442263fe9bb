"""The store over versions: what an older one left is read; whoever changes a stored form raises the schema.

Without it a new version could fail to start on the store of the old one, with all jobs in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from compatibility.stored_forms import FORMS, forms_of, known_keys, stored_fields
from trainctl.controller import keys
from trainctl.controller.access.caller import Role
from trainctl.controller.agents.agent import Registration
from trainctl.controller.installation import SCHEMA, fingerprint
from trainctl.controller.leadership import Leadership
from trainctl.controller.migrations import MIGRATIONS, Migration, migrate
from trainctl.controller.security.authority import open_authority
from trainctl.controller.security.nodes import NodeCertificates
from trainctl.controller.store.port import Put
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.join_token import read_join_text
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.worker import CheckpointReport
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import access_pb2, access_pb2_grpc, job_pb2, records_pb2
from unit.controller.controller_harness import Running, create, run, serving, spec
from unit.security.certificates import new_key, request_of

HERE = Path(__file__).parent
TOKEN = "of the installation"
TAILS = ("x", "x/x", "status", "x/x/status", f"{1:016}", f"x/x/{1:016}")
"""What may follow the beginning of a key."""


def test_whoever_changes_what_is_stored_raises_the_schema() -> None:
    """Frozen files are of schemas that were given out; once the one in work is, its fields are frozen, too.

    A new word counts as a change, too: an older version could not read a value with it.
    """
    frozen = {int(path.stem.rpartition("_")[2]): path for path in HERE.glob("stored_fields_*.json")}
    newest = max(frozen)
    same = stored_fields() == json.loads(frozen[newest].read_text())
    assert (newest if same else newest + 1) == SCHEMA, "add a step to MIGRATIONS and raise installation.SCHEMA"
    assert MIGRATIONS[-1].to == SCHEMA
    assert [step.to for step in MIGRATIONS] == list(range(2, SCHEMA + 1))
    assert all(step.what for step in MIGRATIONS)


@pytest.mark.parametrize("name", [name for name, _ in known_keys()])
def test_every_kind_of_key_has_a_form(name: str) -> None:
    """Of one that only begins keys, what lies under it; a key has one form."""
    key = dict(known_keys())[name]
    found = forms_of(key)
    under = [tail for tail in TAILS if forms_of(f"{key}{tail}")]
    assert len(found) == 1 or (not found and under), f"keys.{name}: add what lies there to stored_forms.FORMS"


def test_whatever_a_controller_writes_has_a_form_that_is_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that it writes while everything that can be asked for is asked for, value by value."""
    written: dict[str, list[Put]] = {}
    plainly = SqliteStore.txn

    async def noted(self: SqliteStore, compares: Any, operations: Any) -> Any:
        for one in operations:
            if isinstance(one, Put):
                (form,) = forms_of(one.key)
                written.setdefault(form, []).append(one)
        return await plainly(self, compares, operations)

    monkeypatch.setattr(SqliteStore, "txn", noted)

    async def main() -> None:
        async with serving(tmp_path, agents=1, agent_command=lambda *_: ("true",)) as running:
            await ask_for_everything(running)
            store: Any = running.controller.leadership._store
            await let_a_machine_in(tmp_path, store, running.controller.leadership)
            changing = Migration(to=SCHEMA + 1, what="nothing", change=lambda _, value: value)
            await migrate(store, running.controller.leadership, (*MIGRATIONS, changing))

    run(main)
    assert set(written) == set(FORMS)
    for form, puts in written.items():
        for put in puts:
            FORMS[form].check(keys.decode(put.value))


async def ask_for_everything(running: Running) -> None:
    client = running.client
    access = access_pb2_grpc.AccessServiceStub(client.channel)
    grant = access_pb2.Grant(tenant="default", role=Role.VIEWER)
    request = access_pb2.CreateTokenRequest(name="somebody", grants=[grant], ttl_s=60)
    await access.CreateToken(request, metadata=client.metadata, timeout=10)
    agent = await running.agent("node-1")
    await client.call("CordonNode", job_pb2.CordonNodeRequest(node="node-1", request_id="c"))
    await client.call("UncordonNode", job_pb2.UncordonNodeRequest(node="node-1"))
    await client.call("CreateJob", create(spec(per_node=2), request_id="r"))
    job = await client.until_phase("a", "RUNNING")
    ref = CheckpointRef(uri="/nowhere/1", step=1, lineage=1, attempt="a", manifest_sha256="0")
    report = CheckpointReport(job_uid=job.uid, island="island-0", generation=1, step=1, lineage=1, ref=ref)
    agent.send(checkpoint=record_to_message(report, records_pb2.CheckpointReport))
    await client.until("a", lambda seen: seen.status.checkpoint.step == 1)
    await client.call("CancelJob", job_pb2.CancelJobRequest(name="a"))
    await client.until_phase("a", "CANCELLED")
    await client.call("DeleteJob", job_pb2.DeleteJobRequest(name="a", keep_checkpoints=True))
    await client.until_gone(job.uid)
    await agent.disconnect()


async def let_a_machine_in(folder: Path, store: SqliteStore, leadership: Leadership) -> None:
    authority = open_authority(folder / "tls", 1_800_000_000.0)
    nodes = NodeCertificates(store, leadership, authority, installation="i", wall_s=lambda: 1_800_000_000.0, life_s=100)
    await nodes.load()
    _, text = await nodes.create_token(ttl_s=60)
    await nodes.join("n", request_of(new_key(), "n"), read_join_text(text).credential)


def test_a_store_of_the_first_schema_is_taken_over(tmp_path: Path) -> None:
    """Written by the version whose records ``stored_fields_1.json`` lists, with a job that runs."""
    values = json.loads((HERE / "store_1.json").read_text())

    async def main() -> None:
        store = await SqliteStore.open(tmp_path / "store.sqlite3")
        values[keys.INSTALLATION]["name"] = fingerprint(TOKEN)
        (tmp_path / "token").write_text(TOKEN)
        await store.txn((), [Put(key, keys.encode(value)) for key, value in values.items()])
        await store.close()
        async with serving(tmp_path) as running:
            job = await running.client.job("a")
            assert (job.status.phase, job.status.islands[0].generation) == ("RUNNING", 1)
            events = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            told = [event.epoch for event in events if event.type != "leader.changed"]
            assert told == [0] * len(told)
            found = await running.controller.leadership._store.get(keys.INSTALLATION)
            assert found is not None
            assert keys.decode(found.value)["schema"] == SCHEMA
            await running.client.call("PauseJob", job_pb2.PauseJobRequest(name="a"))
            events = (await running.client.call("ListEvents", job_pb2.ListEventsRequest(name="a"))).events
            assert events[-1].epoch == running.controller.leadership.epoch

    run(main)


def test_unknown_fields_of_a_stored_record_are_not_read_and_known_ones_are() -> None:
    """A later version's: it is kept from writing such a store by the schema, so nothing is lost."""
    wire = to_wire(Registration(node="n", slots=3)) | {"later": {"deep": [1]}}
    assert from_wire(Registration, wire) == Registration(node="n", slots=3)
