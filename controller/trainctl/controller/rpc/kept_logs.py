"""Logs that are kept with a job's records, for workers that no agent knows of any more. Blocks on the storage."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from datetime import UTC, datetime

from trainctl.checkpoint.storage.beneath import read_beneath
from trainctl.checkpoint.storage.line_log import part_numbers, part_path
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage
from trainctl.controller.rpc.log_relay import Life, LogQuery
from trainctl.core.errors import TrainctlError
from trainctl.core.records.places import LOGS
from trainctl.protos.v1.job_pb2 import StreamLogsResponse

NODE = "records"
"""Stands where the name of a node would."""
MAX_LINES = 50_000
"""Lines of one slot in one answer."""
MAX_PART_BYTES = 128 * 1024 * 1024
"""Of one part of a log; agents begin a new one long before."""
_CHUNK_LINES = 500
_NAME = re.compile(r"(\d+)-(\d+)(?:\.\d+)?\.log")


def kept_logs(records: str, query: LogQuery, known: Container[Life]) -> list[StreamLogsResponse]:
    """The newest lines of each slot, old to new, over all lives but those in ``known``.

    What goes wrong is said in a line of its own: half an answer is better than none.

    Args:
        records: folder or URI of the job's records; empty where it has none.
        query: what is asked for.
        known: lives whose lines somebody else gives.
    """
    if not records:
        return []
    try:
        storage = open_storage(records)
        names = storage.list(LOGS)
        found = {(int(match[1]), int(match[2])) for match in map(_NAME.fullmatch, names) if match is not None}
        lives = sorted((life for life in found if life not in known and _wants(query, life)), reverse=True)
        by_slot: dict[int, list[StreamLogsResponse]] = {slot: [] for slot, _ in reversed(lives)}
        for life in lives:
            chunks = by_slot[life[0]]
            room = min(query.tail_lines or MAX_LINES, MAX_LINES) - sum(len(chunk.lines) for chunk in chunks)
            if room > 0:
                by_slot[life[0]] = [*_read(storage, names, life, room, query.since_s), *chunks]
        return [chunk for chunks in by_slot.values() for chunk in chunks]
    except (OSError, TrainctlError) as error:
        return [StreamLogsResponse(node=NODE, lines=[f"[the logs in {records} cannot be read: {error}]"])]


def _wants(query: LogQuery, life: Life) -> bool:
    slot, incarnation = life
    return (not query.slots or slot in query.slots) and query.incarnation in (0, incarnation)


def _read(storage: Storage, names: Sequence[str], life: Life, room: int, since_s: float) -> list[StreamLogsResponse]:
    """At most ``room`` of the newest lines of one life, in chunks; read from the newest part backwards."""
    stem = f"{life[0]}-{life[1]}"
    lines: list[str] = []
    for part in reversed(part_numbers(names, stem, ".log")):
        data = read_beneath(storage, f"{LOGS}/{part_path(stem, '.log', part)}", MAX_PART_BYTES)
        text = data.decode(errors="replace")
        lines = text.removesuffix("\n").split("\n") + lines if text else lines
        if len(lines) >= room:
            break
    since = datetime.fromtimestamp(since_s, UTC).isoformat(timespec="milliseconds") if since_s > 0 else ""
    since = since.replace("+00:00", "Z")
    first = next((index for index, line in enumerate(lines) if line[: len(since)] >= since), len(lines))
    lines = lines[max(first, len(lines) - room) :]
    return [
        StreamLogsResponse(slot=life[0], incarnation=life[1], node=NODE, lines=lines[begin : begin + _CHUNK_LINES])
        for begin in range(0, len(lines), _CHUNK_LINES)
    ]
