"""The parser as data: its commands with their options, for completion and for the reference page."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command that can be run.

    Attributes:
        path: its words, such as ``("get", "jobs")``.
        summary: what it does.
        epilog: an example, or an empty string.
        positionals: arguments in order.
        options: flags, without ``--help``.
    """

    path: tuple[str, ...]
    summary: str
    epilog: str
    positionals: tuple[argparse.Action, ...]
    options: tuple[argparse.Action, ...]


def is_group(
    action: argparse.Action,
) -> TypeGuard[argparse._SubParsersAction[argparse.ArgumentParser]]:  # pyright: ignore[reportPrivateUsage]  see ``walk``
    """Whether it stands for the commands of a parser, which are its choices."""
    return isinstance(action, argparse._SubParsersAction)  # pyright: ignore[reportPrivateUsage]  see ``walk``


def walk(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[Command]:
    """All commands in the order in which the help shows them."""
    # argparse has no public way to look into a parser; these names have been stable since Python 2.7.
    actions = parser._actions
    groups = [action for action in actions if is_group(action)]
    for group in groups:
        for name, child in group.choices.items():
            if not name.startswith("_"):  # for the shell's completion, not for people
                yield from walk(child, (*path, name))
    if not groups:
        yield Command(
            path=path,
            summary=parser.description or "",
            epilog=parser.epilog or "",
            positionals=tuple(a for a in actions if not a.option_strings),
            options=tuple(a for a in actions if a.option_strings and "--help" not in a.option_strings),
        )
