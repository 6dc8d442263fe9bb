"""No secret in a job file: it is kept in the store and shown to everybody who may look at the job."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainctl.core.codec import to_wire
from trainctl.core.findings import Finding
from trainctl.core.plain import is_mapping, is_sequence
from trainctl.core.records.spec import TrainJob
from trainctl.core.texts import shortened
from trainctl.parallel.plan.command_env import RESERVED

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LOOKS_SECRET = re.compile(r".*(_TOKEN|_KEY|_SECRET|_PASSWORD|_PASSWD)|.*(SECRET|PASSWORD).*", re.IGNORECASE)
_USER_AND_PASSWORD = re.compile(r"[^/\s:@]*:[^/\s@]+@")


def secret_rules(job: TrainJob) -> Iterator[Finding]:
    """Secrets that stand in the file, and names in ``spec.secretEnv`` that cannot be meant. No value is repeated."""
    names = job.spec.secret_env
    for index, name in enumerate(names):
        path = f"spec.secretEnv[{index}]"
        if not _ENV_NAME.fullmatch(name):
            message = "expected the name of an environment variable (letters, digits, underscores; no digit first)"
            yield path, f'{message}, found "{shortened(name)}"'
        elif name in job.spec.env:
            yield path, f"{name} is in spec.env, too: expected it in one of them"
        elif name in names[:index]:
            yield path, f"{name} is named twice"
        elif name in RESERVED:
            yield path, f"{name} is set for each rank; leave it out"
    for name, value in job.spec.env.items():
        if value and _LOOKS_SECRET.fullmatch(name):
            yield (
                f"spec.env.{shortened(name)}",
                "looks like a secret, and whoever may look at the job could read it: name it in spec.secretEnv, and "
                "put its value into a file of that name on the nodes (docs/howto/secrets.md)",
            )
    for path, text in _texts(to_wire(job), ""):
        if _has_password(text):
            yield path, "expected a URL without a password, found one with: whoever may look at the job could read it"


def _has_password(text: str) -> bool:
    """Whether a URL in it names a password. In time that grows with the text only: it may be large, and hostile."""
    at = text.find("://")
    while at >= 0:
        if at and text[at - 1].isalnum() and _USER_AND_PASSWORD.match(text, at + 3):
            return True
        at = text.find("://", at + 3)
    return False


def _texts(value: object, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a job, with its path."""
    if isinstance(value, str):
        yield path, value
    elif is_mapping(value):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}" if path else str(key))
    elif is_sequence(value):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")
