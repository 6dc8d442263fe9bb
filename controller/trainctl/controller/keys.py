"""Where things lie in the state store (control-plane reference 2.2), and how a value is written."""

from __future__ import annotations

import json
from typing import Any

from trainctl.core.errors import InternalError

ROOT = "/trainctl/v1"
LEADER = f"{ROOT}/leader"
EPOCH = f"{ROOT}/epoch"
TERM = f"{ROOT}/meta/term"
INSTALLATION = f"{ROOT}/meta/installation"
MIGRATION = f"{ROOT}/meta/migration"
JOBS = f"{ROOT}/jobs/"
NAMES = f"{ROOT}/names/"
NODES = f"{ROOT}/nodes/"
EVENTS = f"{ROOT}/events/"
INTENTS = f"{ROOT}/intents/"
MARKS = f"{ROOT}/marks/"
TOKENS = f"{ROOT}/tokens/"
AUDIT = f"{ROOT}/audit/"
AUDIT_NEWEST = f"{ROOT}/audit-newest"
JOIN_TOKENS = f"{ROOT}/join-tokens/"
CERTIFICATES = f"{ROOT}/certificates/"
DELETED = f"{ROOT}/deleted/"
DELETED_KEPT_S = 7 * 24 * 3600.0
"""An agent that was away for longer keeps the logs of a deleted job."""
STATUS = "/status"

_JSON_TAG = b"j"


def status(tenant: str, uid: str) -> str:
    """The persisted state of a job."""
    return f"{JOBS}{tenant}/{uid}{STATUS}"


def generation(tenant: str, uid: str, island: str, number: int) -> str:
    """A committed generation record."""
    return f"{JOBS}{tenant}/{uid}/members/{island}/{number:06}"


def checkpoint(tenant: str, uid: str, step: int) -> str:
    """A committed checkpoint."""
    return f"{JOBS}{tenant}/{uid}/ckpt/{step:012}"


def name(tenant: str, job_name: str) -> str:
    """Name to uid of the newest job that has it."""
    return f"{NAMES}{tenant}/{job_name}"


def node(name_: str) -> str:
    """The newest registration of a node's agent; its mod revision is the agent's incarnation."""
    return f"{NODES}{name_}"


def events(tenant: str, uid: str, first: int) -> str:
    """The events of one transaction, the first of which has number ``first``."""
    return f"{EVENTS}{tenant}/{uid}/{first:012}"


def all_events(tenant: str, uid: str) -> str:
    """Where all events of a job lie."""
    return f"{EVENTS}{tenant}/{uid}/"


def all_of_job(tenant: str, uid: str) -> str:
    """Where its state and its records lie."""
    return f"{JOBS}{tenant}/{uid}/"


def deleted(tenant: str, uid: str) -> str:
    """A job that was deleted lately: agents remove what they still keep of it."""
    return f"{DELETED}{tenant}/{uid}"


def node_mark(name_: str) -> str:
    """What an operator said of a node: no new work, or none at all."""
    return f"{MARKS}{name_}"


def token(id_: str) -> str:
    """A token that somebody was given, without its secret."""
    return f"{TOKENS}{id_}"


def audit(number: int) -> str:
    """Something that was asked for, or refused."""
    return f"{AUDIT}{number:016}"


def join_token(id_: str) -> str:
    """What lets machines become nodes, without its secret."""
    return f"{JOIN_TOKENS}{id_}"


def certificate(name_: str) -> str:
    """Which key is a node's, and until when its newest certificate is good."""
    return f"{CERTIFICATES}{name_}"


def request(tenant: str, request_id: str) -> str:
    """What became of a request id."""
    return f"{ROOT}/requests/{tenant}/{request_id}"


def intent(name_: str) -> str:
    """A side effect that was decided and may not have happened yet."""
    return f"{INTENTS}{name_}"


def encode(value: Any) -> bytes:
    """A JSON value with its format tag."""
    return _JSON_TAG + json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def decode(value: bytes) -> Any:
    """Reads what ``encode`` wrote.

    Raises:
        InternalError: another format, from a newer version.
    """
    if value[:1] != _JSON_TAG:
        raise InternalError(
            f"stored value: expected format {_JSON_TAG!r}, found {value[:1]!r}",
            hint="a newer controller wrote this store; use that version",
        )
    return json.loads(value[1:])
