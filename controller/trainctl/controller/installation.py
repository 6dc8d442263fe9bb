"""Whose store it is, who may read it, and whether it is as it was left: judged before anybody acts on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from trainctl.controller import keys
from trainctl.controller.agents.doubt import ACCEPTED_JUMP
from trainctl.controller.store.port import Compare, Operation, Put, StateStore, Target
from trainctl.controller.stored import reading
from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.errors import ConflictError, PreconditionError
from trainctl.core.json_text import read_object
from trainctl.core.plain import is_mapping
from trainctl.core.system.files import write_atomically
from trainctl.protos.version import package_version

SCHEMA = 2
"""Of the keys and values that this version writes. Raised, with a step in ``migrations``, whenever they change: an
older version could not read them, or would lose what it does not know when it writes."""


class NewerStoreError(PreconditionError):
    """The store was written by a newer version, in a way that this one cannot read."""

    code = "STORE_NEWER"


class ForeignStoreError(ConflictError):
    """The store belongs to another installation."""

    code = "STORE_FOREIGN"


class OldStoreError(PreconditionError):
    """The store is older than it was left: it was restored from a backup."""

    code = "STORE_WENT_BACK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """What the store says of itself.

    Attributes:
        name: fingerprint of the token that all controllers of an installation share; tells two of them apart.
        schema: how its values are written.
        version: trainctl that wrote this last.
        authority: fingerprint of its certificate authority; empty: its controllers have no TLS.
    """

    name: str
    authority: str = ""
    schema: int = SCHEMA
    version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """How this controller left the store when it last led; kept in its own folder."""

    epoch: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A store that this controller may act on.

    Attributes:
        epoch: what the next leader has to go beyond.
        schema: of its values; of an empty one, that of whoever writes first.
        unmoved: that nobody led since. Whoever did may have brought the values to a newer form.
    """

    epoch: int
    schema: int
    unmoved: Compare


class ForeignAuthorityError(ConflictError):
    """The nodes of this installation trust another certificate authority."""

    code = "AUTHORITY_FOREIGN"


def fingerprint(token: str) -> str:
    """What can be written down of a token."""
    return hashlib.sha256(b"trainctl installation\0" + token.encode()).hexdigest()[:16]


def judge(
    found: Installation | None,
    own: str,
    seen: Sighting,
    *,
    epoch: int,
    revision: int,
    authority: str = "",
    schema: int = SCHEMA,
) -> None:
    """Sees that this controller may act on a store.

    Args:
        found: what the store says; None if nothing was ever written.
        own: fingerprint of this controller's token.
        seen: how this controller left the store; of another installation's it knows nothing.
        epoch: of the store now.
        revision: of the store now.
        authority: fingerprint of this controller's certificate authority, empty without TLS.
        schema: that this controller writes.

    Raises:
        NewerStoreError, ForeignStoreError, ForeignAuthorityError, OldStoreError: it may not.
    """
    if found is not None and found.schema > schema:
        raise NewerStoreError(
            f"the state store was written by trainctl {found.version} (schema {found.schema}); this one is "
            f"{package_version()} and reads up to schema {schema}",
            hint="use that version or a newer one; nothing was changed",
        )
    if found is not None and found.name != own:
        raise ForeignStoreError(
            "the state store belongs to another installation: its controllers have another token",
            hint="give each installation a prefix of its own (etcd://.../PREFIX), or all controllers of one the same "
            "token; if the token was changed, start once with --accept-store",
        )
    if found is not None and found.authority and found.authority != authority:
        other = f"this controller has another one (SHA-256 {authority[:16]}...)" if authority else "this one has no TLS"
        raise ForeignAuthorityError(
            f"the nodes of this installation trust the certificate authority with SHA-256 {found.authority[:16]}...; "
            f"{other}",
            hint="start it with --tls, and all controllers of an installation with the same ca.crt and ca.key "
            "(--tls-ca DIR); if the authority was replaced or TLS taken away on purpose, start once with "
            "--accept-store",
        )
    if epoch < seen.epoch or revision < seen.revision:
        raise went_back(f"epoch {epoch} and revision {revision}", f"epoch {seen.epoch} and revision {seen.revision}")


def went_back(found: str, seen: str) -> OldStoreError:
    """The error of a store that is at ``found`` after it was at ``seen``."""
    return OldStoreError(
        f"the state store is older than it was left: {found}, after {seen}; it was restored from a backup, or is "
        "another one",
        hint="restore a newer one. Or, knowing that jobs and checkpoints since then are missing in it, start once "
        "with --accept-store: workers that it does not know of are ended",
    )


async def inspect(
    store: StateStore, own: str, seen: Sighting, *, accept: bool, authority: str = "", schema: int = SCHEMA
) -> Found:
    """Reads the store and judges it.

    Args:
        store: to act on.
        own: fingerprint of this controller's token.
        seen: how this controller left the store.
        accept: somebody said that this store is the right one, whatever it looks like; a newer version's never is.
        authority: fingerprint of this controller's certificate authority, empty without TLS.
        schema: that this controller writes.

    Raises:
        NewerStoreError, ForeignStoreError, ForeignAuthorityError, OldStoreError: as ``judge``.
    """
    entry, epoch_entry = await store.get(keys.INSTALLATION), await store.get(keys.EPOCH)
    with reading(keys.INSTALLATION):
        found = _read(keys.decode(entry.value), schema) if entry is not None else None
    with reading(keys.EPOCH):
        epoch = int(keys.decode(epoch_entry.value)) if epoch_entry is not None else 0
    revision = (await store.range(keys.EPOCH, limit=1)).revision
    if accept and found is not None and found.schema <= schema:
        found, seen_now = replace(found, name=own, authority=authority), Sighting()
    else:
        seen_now = Sighting() if accept else seen
    judge(found, own, seen_now, epoch=epoch, revision=revision, authority=authority, schema=schema)
    # Agents may have obeyed later leaders than an accepted store knows of: the next one has to be later still.
    jump = ACCEPTED_JUMP if accept else 0
    return Found(
        epoch=max(epoch, seen.epoch) + jump,
        schema=found.schema if found is not None else schema,
        unmoved=Compare(keys.INSTALLATION, Target.MOD_REVISION, entry.mod_revision if entry is not None else 0),
    )


def stamp(own: str, authority: str = "", *, schema: int = SCHEMA) -> Operation:
    """Written with the leadership: from now on the store says whose it is; what is in it is still of ``schema``."""
    installation = Installation(name=own, schema=schema, version=package_version(), authority=authority)
    return Put(keys.INSTALLATION, keys.encode(to_wire(installation)))


def load_sighting(path: Path) -> Sighting:
    """What an earlier life of this controller wrote down; nothing seen if there is no such file."""
    try:
        return from_wire(Sighting, read_object(path))
    except (FileNotFoundError, ValueError, WireError):
        return Sighting()


def save_sighting(path: Path, sighting: Sighting) -> None:
    """Writes it down for the next life."""
    write_atomically(path, json.dumps(to_wire(sighting)).encode() + b"\n")


def _read(value: object, schema: int) -> Installation:
    found = value.get("schema", 0) if is_mapping(value) else 0
    if isinstance(found, int) and found > schema and is_mapping(value):  # the rest may look like anything
        return Installation(name="", schema=found, version=str(value.get("version", "unknown")))
    return from_wire(Installation, value)
