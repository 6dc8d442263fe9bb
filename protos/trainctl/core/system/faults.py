"""Named fault points: places where a test can make this very process die, freeze or fail.

Free when off: without ``TRAINCTL_FAULTS`` in the environment a point is one comparison. Else it holds JSON::

    [{"point": "vote.before", "action": "kill", "where": {"slot": 1, "step": 7}}]

``where`` must match what the point says of itself, the first ``skip`` times without effect; ``action`` is ``kill``
(SIGKILL), ``stop`` (SIGSTOP), ``raise`` (RuntimeError) or ``enospc`` (OSError, disk full). Each entry fires once:
across processes when ``TRAINCTL_FAULTS_DIR`` names a folder for the marks, else once per process. With ``"after":
PATH`` it counts only from when that file is there. ``POINTS`` is the whole list; a test sees that each one is used.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FAULTS_VARIABLE = "TRAINCTL_FAULTS"
FAULTS_DIR_VARIABLE = "TRAINCTL_FAULTS_DIR"

POINTS: Mapping[str, str] = {
    "step.compute": "before the forward pass of a micro-batch",
    "step.reduce": "before the gradient reduction",
    "vote.before": "before this rank sends its record",
    "vote.in": "after the record was sent, before the outcome was read",
    "vote.after": "after the outcome was seen, before it is applied",
    "apply.in": "between applying(s) and applied(s)",
    "apply.after": "after applied(s)",
    "rebuild.in": "while the group of a new generation is built",
    "restore.send": "while a holder sends state",
    "restore.receive": "while a new worker receives state",
    "checkpoint.write": "before a writer's data file is written",
    "checkpoint.seal": "before the root manifest is written",
    "checkpoint.sealed": "after the root manifest was written, before it is reported",
    "snapshot.share": "before a rank sends its part of a snapshot to its buddy, and takes those of others",
    "snapshot.send": "before each message with a rank's part of a snapshot to its buddy",
    "snapshot.receive": "when a message with another rank's part of a snapshot is there, before it is written",
    "controller.before_txn": "before a reconcile transaction",
    "controller.after_txn": "after a reconcile transaction, before its effects",
    "controller.audited": "after it was written down that somebody asked for a change, before the change",
    "controller.before_closing": "before an ended job's records are written",
    "controller.before_removal": "before a deleted job's files, or a checkpoint's, are removed",
    "controller.before_unpin": "after a checkpoint was released in the store, before its mark is removed",
    "agent.before_start": "before an agent starts a worker",
}


@dataclass(slots=True)
class _Fault:
    point: str
    action: str
    where: Mapping[str, object]
    mark: str
    skip: int = 0
    after: str = ""
    fired: bool = False

    def armed(self, point: str, context: Mapping[str, object]) -> bool:
        """Whether it is for this point, here and now."""
        if self.point != point or self.fired or any(context.get(key) != want for key, want in self.where.items()):
            return False
        return not self.after or os.path.exists(self.after)


def _load() -> list[_Fault]:
    text = os.environ.get(FAULTS_VARIABLE, "")
    if not text:
        return []
    faults: list[_Fault] = []
    for index, entry in enumerate(json.loads(text)):
        if entry["point"] not in POINTS:
            raise ValueError(
                f"{FAULTS_VARIABLE}[{index}]: unknown fault point {entry['point']!r}; known: {', '.join(POINTS)}"
            )
        faults.append(
            _Fault(
                point=entry["point"],
                action=entry["action"],
                where=entry.get("where", {}),
                mark=f"fault-{index}",
                skip=entry.get("skip", 0),
                after=entry.get("after", ""),
            )
        )
    return faults


class FaultPlan:
    """The faults armed in this process; reads the environment once, when made."""

    def __init__(self) -> None:
        self._faults = _load()
        self._dir = os.environ.get(FAULTS_DIR_VARIABLE, "")

    def reach(self, point: str, **context: object) -> None:
        """Says that ``point`` was reached; does what the first matching armed fault wants."""
        if not self._faults:
            return
        for fault in self._faults:
            if not fault.armed(point, context):
                continue
            if fault.skip:
                fault.skip -= 1
            elif self._claim(fault):
                self._act(fault)

    def _claim(self, fault: _Fault) -> bool:
        fault.fired = True
        if not self._dir:
            return True
        try:
            (Path(self._dir) / fault.mark).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _act(self, fault: _Fault) -> None:
        if fault.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault.action == "stop":
            # To this very thread, which goes no further: a signal to the process is taken by any, and perhaps later.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        elif fault.action == "enospc":
            raise OSError(errno.ENOSPC, f"injected at {fault.point}: no space left on device")
        else:
            raise RuntimeError(f"injected at {fault.point}")
