"""What lies in the store under each kind of key, and every field and word of it: the forms that versions share."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from trainctl.controller import keys
from trainctl.controller.access.audit_record import AuditRecord
from trainctl.controller.access.token import TokenRecord
from trainctl.controller.agents.agent import NodeMark, Registration
from trainctl.controller.domain.job_state import JobState
from trainctl.controller.domain.term import TermRecord
from trainctl.controller.installation import Installation
from trainctl.controller.jobs.deleted_job import DeletedJob
from trainctl.controller.jobs.journal import JobEvent
from trainctl.controller.security.join_tokens import Held, JoinToken
from trainctl.core.codec import from_wire, to_wire
from trainctl.core.records.generation import CheckpointRef, GenerationRecord


@dataclass(frozen=True)
class Form:
    """The value under one kind of key.

    Attributes:
        key: a pattern of the whole key.
        record: what the value is read as; None: it is an object with ``fields``.
        fields: names in the object.
    """

    key: str
    record: Any = None
    fields: tuple[str, ...] = ()

    def fits(self, key: str) -> bool:
        """Whether it is the form of this key's value."""
        return re.fullmatch(self.key, key) is not None

    def check(self, value: Any) -> None:
        """Raises if the value is anything but this."""
        if self.record is None:
            assert set(value) == set(self.fields), value
        else:
            assert to_wire(from_wire(self.record, value)) == value, value


_NAME = "[^/]+"
FORMS = {
    "leader": Form(keys.LEADER, fields=("holder", "address", "epoch")),
    "epoch": Form(keys.EPOCH, int),
    "term": Form(keys.TERM, TermRecord),
    "installation": Form(keys.INSTALLATION, Installation),
    "migration": Form(keys.MIGRATION, fields=("to", "after")),
    "job": Form(keys.status(_NAME, _NAME), JobState),
    "generation": Form(f"{keys.JOBS}{_NAME}/{_NAME}/members/{_NAME}/[0-9]{{6,}}", GenerationRecord),
    "checkpoint": Form(f"{keys.JOBS}{_NAME}/{_NAME}/ckpt/[0-9]{{12,}}", CheckpointRef),
    "name": Form(keys.name(_NAME, _NAME), str),
    "node": Form(keys.node(_NAME), Registration),
    "node mark": Form(keys.node_mark(_NAME), NodeMark),
    "events": Form(f"{keys.EVENTS}{_NAME}/{_NAME}/[0-9]{{12,}}", tuple[JobEvent, ...]),
    "intent": Form(keys.intent(_NAME), fields=("create", "slots")),
    "token": Form(keys.token(_NAME), TokenRecord),
    "audit": Form(f"{keys.AUDIT}[0-9]{{16,}}", AuditRecord),
    "newest audit": Form(keys.AUDIT_NEWEST, int),
    "join token": Form(keys.join_token(_NAME), JoinToken),
    "certificate": Form(keys.certificate(_NAME), Held),
    "deleted": Form(keys.deleted(_NAME, _NAME), DeletedJob),
    "request": Form(keys.request(_NAME, _NAME), fields=("method", "digest", "uid")),
}


def forms_of(key: str) -> list[str]:
    """The forms that a key has: one."""
    return [name for name, form in FORMS.items() if form.fits(key)]


def known_keys() -> Iterator[tuple[str, str]]:
    """Name and an example of everything in ``keys`` that is a key, or what keys begin with."""
    for name, value in vars(keys).items():
        if isinstance(value, str) and value.startswith(f"{keys.ROOT}/"):
            yield name, value
        elif isinstance(value, FunctionType) and value not in (keys.encode, keys.decode):
            hints = typing.get_type_hints(value)
            values = {one: 7 if hints[one] is int else "x" for one in inspect.signature(value).parameters}
            yield name, value(**values)


def stored_fields() -> dict[str, list[str]]:
    """The fields of every record that lies in the store, and the words of every list, by name."""
    found: dict[str, list[str]] = {}
    todo: list[type] = []
    for name, form in FORMS.items():
        if form.record is None:
            found[name] = sorted(form.fields)
        todo += _named_in(form.record)
    while todo:
        named = todo.pop()
        if named.__name__ in found:
            continue
        if issubclass(named, enum.Enum):
            found[named.__name__] = sorted(str(word.value) for word in named)
            continue
        hints = typing.get_type_hints(named)
        found[named.__name__] = sorted(hints)
        todo += [inner for hint in hints.values() for inner in _named_in(hint)]
    return dict(sorted(found.items()))


def _named_in(hint: Any) -> Iterator[type]:
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, enum.Enum)):
        yield hint
    for inner in typing.get_args(hint):
        yield from _named_in(inner)
