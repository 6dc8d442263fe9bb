"""The store over versions: what an older one left is read; whoever changes a stored form raises the schema."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trainctl.controller import keys
from trainctl.controller.agents.agent import NodeMark, Registration
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.installation import SCHEMA, Installation, fingerprint
from trainctl.controller.jobs.journal import JobEvent
from trainctl.controller.migrations import MIGRATIONS
from trainctl.controller.store.port import Put
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.codec import from_wire, to_wire
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import run, serving

HERE = Path(__file__).parent
STORED = (JobState, JobEvent, Registration, NodeMark, Installation)
TOKEN = "of the installation"


def stored_fields() -> dict[str, list[str]]:
    """The fields of every record that lies in the store, by record."""
    found: dict[str, list[str]] = {}
    todo: list[type] = list(STORED)
    while todo:
        record = todo.pop()
        if record.__name__ not in found:
            hints = typing.get_type_hints(record)
            found[record.__name__] = sorted(hints)
            todo += [inner for hint in hints.values() for inner in _records_in(hint)]
    return dict(sorted(found.items()))


def _records_in(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
    for inner in typing.get_args(hint):
        yield from _records_in(inner)


def test_whoever_changes_what_is_stored_raises_the_schema() -> None:
    """Frozen files are of schemas that were given out; once the one in work is, its fields are frozen, too."""
    frozen = {int(path.stem.rpartition("_")[2]): path for path in HERE.glob("stored_fields_*.json")}
    newest = max(frozen)
    same = stored_fields() == json.loads(frozen[newest].read_text())
    assert (newest if same else newest + 1) == SCHEMA, "add a step to MIGRATIONS and raise installation.SCHEMA"
    assert MIGRATIONS[-1].to == SCHEMA
    assert [step.to for step in MIGRATIONS] == list(range(2, SCHEMA + 1))
    assert all(step.what for step in MIGRATIONS)


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
            assert [event.epoch for event in events] == [0] * len(events)
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
