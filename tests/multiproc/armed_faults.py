"""Faults that a test asks its processes for: each has to be reached, or the test shows nothing of what it is about."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainctl.core.system.faults import FAULTS_DIR_VARIABLE, FAULTS_VARIABLE, POINTS

Fault = Mapping[str, Any]
"""An entry of ``TRAINCTL_FAULTS`` (see ``trainctl.core.system.faults``)."""


def fault(point: str, action: str = "kill", **where: Any) -> dict[str, Any]:
    """What a process is to do at a point; ``where`` has to match what the point says of itself."""
    return {"point": point, "action": action, "where": where}


class ArmedFaults:
    """Faults of the processes that get ``environment``, each of which fires once, in whichever comes there first.

    Args:
        folder: for the marks of those that fired; made if need be.
        faults: what is asked for.

    Raises:
        AssertionError: there is no such fault point.
    """

    def __init__(self, folder: Path, faults: Sequence[Fault]) -> None:
        unknown = [fault["point"] for fault in faults if fault["point"] not in POINTS]
        assert not unknown, f"no such fault point: {', '.join(unknown)}; known: {', '.join(POINTS)}"
        self._folder = folder
        self._faults = tuple(faults)
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to have them."""
        return {FAULTS_VARIABLE: json.dumps(self._faults), FAULTS_DIR_VARIABLE: str(self._folder)}

    def reached(self, index: int) -> bool:
        """Whether some process came to that one."""
        return (self._folder / f"fault-{index}").exists()

    def check(self) -> None:
        """Every fault was reached.

        Raises:
            AssertionError: names those that were not.
        """
        missed = [fault for index, fault in enumerate(self._faults) if not self.reached(index)]
        assert not missed, "\n".join(
            f"the fault {fault['action']} at point {fault['point']} where {fault.get('where', {})} was never reached"
            for fault in missed
        )
