"""Names for the identities of design section 2, so that a job uid is never passed where a node is meant."""

from __future__ import annotations

import re
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
MAX_REQUEST_ID = 128
"""Characters of the id under which somebody asks for a change."""
LABEL = "at most 63 small letters, digits and dashes, with a letter or digit at both ends"
"""What ``is_label`` takes, for messages."""
NODE_NAME = "1 to 253 letters, digits, dots, dashes and underscores, with a letter or digit at both ends"
"""What ``is_node_name`` takes, for messages."""
_NODE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_label(text: str) -> bool:
    """Whether this may be the name of a job or a tenant: a DNS label. Source: RFC 1123, 2.1."""
    return _LABEL.fullmatch(text) is not None


def is_node_name(text: str) -> bool:
    """Whether a node may be called so."""
    return _NODE.fullmatch(text) is not None
