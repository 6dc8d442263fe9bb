"""What is saved beside the tensors: seen to be what can be stored, before anything is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trainctl.checkpoint.manifest.values import encode_value
from trainctl.core.errors import CheckpointError
from trainctl.core.plain import is_mapping


def encode_beside(objects: Any, artifacts: Any) -> Mapping[str, Any]:
    """The objects as JSON, where they and the artifacts can be stored.

    Args:
        objects: values that JSON can hold, as ``encode_value`` takes them, by name.
        artifacts: bytes by relative path.

    Raises:
        CheckpointError: lists all that cannot.
    """
    problems: list[str] = []
    hints: list[str] = []
    encoded: Mapping[str, Any] = {}
    try:
        if not isinstance(objects, Mapping):
            text = f"objects: expected a dict by name, found {type(objects).__name__}"
            raise CheckpointError(text, hint="give each value a name")
        encoded = encode_value(objects)
    except CheckpointError as error:
        problems.append(str(error))
        hints.append(error.hint)
    if wrong := list(_unlike_files(artifacts)):
        problems += wrong
        hints.append("artifacts are files by relative path: text.encode() makes bytes of a text")
    if problems:
        raise CheckpointError("\n".join(problems), hint="; ".join(filter(None, hints)))
    return encoded


def _unlike_files(artifacts: Any) -> Iterator[str]:
    if not is_mapping(artifacts):
        yield f"artifacts: expected a dict by path, found {type(artifacts).__name__}"
        return
    for name, content in artifacts.items():
        if not isinstance(name, str) or any(part in ("", ".", "..") for part in name.split("/")):
            yield f"artifacts: expected a relative path as the name of an artifact, found {name!r}"
        if not isinstance(content, (bytes, bytearray, memoryview)):
            yield f"artifacts[{name!r}]: expected bytes, found {type(content).__name__}"
