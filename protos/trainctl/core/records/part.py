"""What one rank's part of a save or a load took, as it travels from the worker to whoever wants to know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trainctl.core.records.word import Word

SAVE_STAGES = ("stall", "plan", "memory", "fence", "copy", "checksum", "write", "sync")
"""Of a rank; what they mean is said by ``checkpoint.monitor``."""
LOAD_STAGES = ("plan", "fetch", "read", "verify", "copy", "digest")
CAUSES = ("storage", "no_answer", "late_copy", "changed_state", "no_memory", "seal", "other")
"""Why a save failed, in a word."""
OTHER = "other"
NO_ROOM = "no_room"
"""Of a snapshot only: a node's memory did not take it."""
SNAPSHOT = "snapshot"
"""What ``storage_kind`` says of the memory of nodes: figures of checkpoints leave it out."""
_FILE = "file"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,19}")


class TransferKind(Word):
    """Which way the bytes of a job's state go."""

    SAVE = "save"
    LOAD = "load"
    COPY = "copy"
    """From other workers, which hold it."""


@dataclass(frozen=True, slots=True)
class PartTimes:
    """One rank's part of a save or of a load.

    Attributes:
        rank: who.
        data_bytes: tensor bytes of it: what the rank wrote, or what it wanted.
        seconds: by stage; one that is missing took none.
        moved_bytes: bytes that the storage was asked for to load them; 0 of a save.
        healed_reads: blocks and manifests that came with wrong bytes and were right when they were read again.
    """

    rank: int
    data_bytes: int
    seconds: Mapping[str, float]
    moved_bytes: int = 0
    healed_reads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """How far a worker is with its part of the save, load or copy that is going on.

    Attributes:
        kind: which of them.
        step: that the state is of.
        done_bytes: written or read so far; a part that is tried again begins anew.
        total_bytes: of the part.
        age_s: seconds since it began.
        in_flight: saves (or loads) of this worker that are not over, this one included.
    """

    kind: TransferKind
    step: int
    done_bytes: int = 0
    total_bytes: int = 0
    age_s: float = 0.0
    in_flight: int = 1


def storage_kind(uri: str) -> str:
    """What a checkpoint lies on, in a word: ``file``, or the scheme of its URI, such as ``s3``."""
    scheme, found, _ = uri.partition("://")
    if not found:
        return _FILE
    return scheme.lower() if _SCHEME.fullmatch(scheme.lower()) else OTHER
