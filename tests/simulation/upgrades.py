"""What has to hold while controllers of two versions take turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simulation.controllers import COUNTED, LATER
from simulation.history import History
from trainctl.controller import keys


def stored_forms_only_go_forward(history: History) -> Iterator[str]:
    """The schema never falls, nobody who cannot write it writes, and each value is brought to it once."""
    schema, epoch, upgraded = 0, 0, 0
    records: dict[str, Any] = {}
    unfinished = False
    for written in history.ran.written:
        able = history.ran.schemas.get(written.client)
        for event in written.events:
            value = keys.decode(event.current.value) if event.current is not None else None
            if event.key == keys.EPOCH and value is not None:
                epoch = value
            elif event.key == keys.INSTALLATION and value is not None:
                if value["schema"] < schema and able is not None:
                    yield f"revision {written.revision}: schema {schema} became {value['schema']}"
                if value["schema"] == LATER[-1].to > schema:
                    upgraded = epoch
                schema = value["schema"]
            elif event.key == keys.MIGRATION:
                unfinished = value is not None
            elif "/members/" in event.key:
                records[event.key] = value
        if able is not None and able < schema:
            yield f"revision {written.revision}: {written.client} wrote to schema {schema}, it reads up to {able}"
    for key, record in records.items() if upgraded and not unfinished else ():
        times, expected = (record.get(COUNTED, 0), int(record["epoch"] < upgraded)) if record is not None else (0, 0)
        if times != expected:
            yield f"{key}: changed {times} times on the way to schema {schema}, expected {expected}"
