"""What is checked of every word on the command line before anything is done with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainctl.core.errors import UsageError
from trainctl.core.ids import MAX_REQUEST_ID
from trainctl.core.texts import quoted

_PREFIX = "TRAINCTL_"
_ENCODING_HINT = "write it in UTF-8; a file whose name is not UTF-8 can be renamed, or read from stdin"
_UNSET = "is the variable in it set?"


def check_encoding(arguments: Sequence[str], env: Mapping[str, str]) -> None:
    """Sees that the arguments, and those variables that are ours, are texts.

    Raises:
        UsageError: one is made of other bytes; names it.
    """
    named = [(f"argument {number}", word) for number, word in enumerate(arguments, 1)]
    named += [(name, value) for name, value in env.items() if name.startswith(_PREFIX)]
    for name, word in named:
        if not is_text(word):
            raise UsageError(f"{name}: expected UTF-8 text, found {quoted(word)}", hint=_ENCODING_HINT)


def is_text(word: str) -> bool:
    """Whether it can be encoded: what the system handed over was UTF-8."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def job_name(text: str) -> str:
    """What stands where a job is to be named.

    Raises:
        UsageError: nothing.
    """
    return _something(text, "NAME: expected the name or uid of a job", "`trainctl get jobs` lists all jobs")


def node_name(text: str) -> str:
    """What stands where a node is to be named.

    Raises:
        UsageError: nothing.
    """
    return _something(text, "NODE: expected the name of a node", "`trainctl nodes list` lists all nodes")


def request_id(text: str) -> str:
    """What stands behind ``--request-id``.

    Raises:
        UsageError: no id that the controller takes.
    """
    expected = f"--request-id: expected 1 to {MAX_REQUEST_ID} printable characters"
    hint = "a UUID will do; give the id that an error showed, or none at all"
    if len(text) > MAX_REQUEST_ID:
        raise UsageError(f"{expected}, found {len(text)}", hint=hint)
    if not text:
        raise UsageError(f"{expected}, found an empty text", hint=f"{_UNSET} {hint}")
    if not text.isprintable():
        raise UsageError(f"{expected}, found {quoted(text)}", hint=hint)
    return text


def _something(text: str, expected: str, hint: str) -> str:
    if not text.strip():
        raise UsageError(f"{expected}, found an empty text", hint=f"{_UNSET} {hint}")
    return text
