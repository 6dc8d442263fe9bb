"""Names for the identities of design section 2, so that a job uid is never passed where a node is meant."""

from __future__ import annotations

from typing import NewType

JobUid = NewType("JobUid", str)
"""Unique for ever; a job's *name* is only unique among the jobs that are not finished."""

NodeId = NewType("NodeId", str)
"""The machine an agent runs on; survives the agent's death."""

Incarnation = NewType("Incarnation", int)
"""One life of one agent or worker: assigned by the controller, never reused, ordered."""

Epoch = NewType("Epoch", int)
"""The leader's fencing epoch ``E``: a message with a smaller one is refused."""

Generation = NewType("Generation", int)
"""An island's membership number ``g``: rises by one whenever its members or their rank order change."""

DEFAULT_TENANT = "default"
FIRST_ISLAND = "island-0"
