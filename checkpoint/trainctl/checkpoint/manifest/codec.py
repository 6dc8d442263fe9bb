"""Manifests to bytes and back, strictly: what is foreign, newer, torn or changed is told apart, by file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from trainctl.checkpoint.layout.key import DTYPE_BYTES
from trainctl.checkpoint.manifest.records import (
    TCF_KEYS,
    TCF_VERSION,
    ContentsManifest,
    PartManifest,
    RootManifest,
    StoredFile,
)
from trainctl.checkpoint.manifest.soundness import contents_problem, part_problem, root_problem
from trainctl.core.codec import WireError, from_wire, to_wire
from trainctl.core.errors import CheckpointError, DamagedCheckpointError
from trainctl.core.json_text import NoJsonError, parse_json
from trainctl.core.plain import is_dict
from trainctl.core.texts import shortened

M = TypeVar("M", PartManifest, RootManifest, ContentsManifest)


class TornManifestError(DamagedCheckpointError):
    """A manifest is not the one that was written: no version of trainctl can read it."""


_GO_BACK = "this attempt cannot be used: resume from an older checkpoint, or restore the file from a copy"


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def dump_part(part: PartManifest) -> bytes:
    """A part manifest as JSON."""
    return _dump(to_wire(part))


def dump_contents(contents: ContentsManifest) -> bytes:
    """A table of contents as JSON."""
    return _dump(to_wire(contents))


def dump_root(root: RootManifest) -> bytes:
    """A root manifest as JSON, with its own hash filled in."""
    unsigned = to_wire(dataclasses.replace(root, self_sha256=""))
    return _dump({**unsigned, "selfSha256": sha256(_dump(unsigned))})


def parse_part(data: bytes, expected: StoredFile, *, where: str) -> PartManifest:
    """The part manifest that the root manifest promised.

    Raises:
        CheckpointError: it is another one, or damaged, or a tensor has a dtype that this version does not know.
    """
    _check_hash(data, expected, where)
    part = _record(PartManifest, _object(data, where), where)
    _check_dtypes(((tensor.fqn, tensor.kind, tensor.dtype) for tensor in part.tensors), where)
    _refuse(part_problem(part), where)
    return part


def parse_contents(data: bytes, expected: StoredFile, *, where: str) -> ContentsManifest:
    """The table of contents that the root manifest promised.

    Raises:
        CheckpointError: as ``parse_part``.
    """
    _check_hash(data, expected, where)
    contents = _record(ContentsManifest, _object(data, where), where)
    _refuse(contents_problem(contents), where)
    _check_dtypes(((alike.fqns[0], alike.kinds[0], alike.dtype) for alike in contents.tensors if alike.fqns), where)
    return contents


def parse_root(data: bytes, *, where: str) -> RootManifest:
    """A root manifest.

    Raises:
        CheckpointError: it is not TCF, of a newer major version, torn, or its hash does not match.
    """
    fields = _object(data, where)
    try:
        signed = sha256(_dump({**fields, "selfSha256": ""}))
    except (ValueError, RecursionError) as error:  # such as NaN, which Python reads and no JSON has
        raise DamagedCheckpointError(f"{where} is malformed: {error}", hint=_GO_BACK) from error
    found = fields.get("selfSha256")
    if found != signed:
        shown = shortened(found) if isinstance(found, str) else type(found).__name__
        raise TornManifestError(f"{where} is corrupt: expected selfSha256 {signed}, found {shown}", hint=_GO_BACK)
    root = _record(RootManifest, fields, where)
    _refuse(root_problem(root), where)
    return root


def _refuse(problem: str, where: str) -> None:
    if problem:
        raise DamagedCheckpointError(f"{where} is malformed: {problem}", hint=_GO_BACK)


def _check_hash(data: bytes, expected: StoredFile, where: str) -> None:
    found = sha256(data)
    if found != expected.sha256:
        raise DamagedCheckpointError(
            f"{where} is corrupt: expected sha256 {expected.sha256}, found {found}", hint=_GO_BACK
        )


def _check_dtypes(found: Iterable[tuple[str, str, str]], where: str) -> None:
    for fqn, kind, dtype in found:
        if dtype not in DTYPE_BYTES:
            raise CheckpointError(
                f"{where}, {kind} of {fqn}: expected a dtype of {', '.join(DTYPE_BYTES)}, found {shortened(dtype)!r}",
                hint="read it with the version of trainctl that wrote it, or a newer one",
            )


def _dump(fields: Any) -> bytes:
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _object(data: bytes, where: str) -> Mapping[str, Any]:
    try:
        fields = parse_json(data)
    except NoJsonError as error:
        raise TornManifestError(
            f"{where} is torn: expected a JSON object, found {len(data)} bytes that are none ({error})", hint=_GO_BACK
        ) from error
    if not is_dict(fields) or not isinstance(fields.get("tcf"), int):
        raise CheckpointError(
            f"{where} is foreign: expected a TCF manifest with a field tcf, found none",
            hint="name the folder of a checkpoint that trainctl wrote",
        )
    if fields["tcf"] not in (TCF_VERSION, TCF_KEYS):
        raise CheckpointError(
            f"{where}: expected version {TCF_VERSION} or {TCF_KEYS} of the checkpoint format, found {fields['tcf']}",
            hint="read it with the version of trainctl that wrote it, or a newer one",
        )
    return fields


def _record(cls: type[M], fields: Mapping[str, Any], where: str) -> M:
    try:
        return from_wire(cls, fields)
    except (WireError, RecursionError) as error:
        raise DamagedCheckpointError(f"{where} is malformed: {error}", hint=_GO_BACK) from error
