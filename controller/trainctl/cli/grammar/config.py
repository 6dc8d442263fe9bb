"""The grammar of ``trainctl config``."""

from __future__ import annotations

from typing import Any

from trainctl.cli.grammar.arguments import add_command, add_group, add_output


def add_config(commands: Any) -> None:
    """Adds the group."""
    group = add_group(
        commands,
        "config",
        "which controllers this command knows, and which one it talks to",
        examples=(
            "trainctl config set-context lab --address 127.0.0.1:7070 --token-file ~/lab.token",
            "trainctl config use-context lab",
            "trainctl config explain",
        ),
    )
    view = add_command(group, "view", "config:view", "show the config file", examples=("trainctl config view -o yaml",))
    add_output(view)
    explain = add_command(
        group,
        "explain",
        "config:explain",
        "show what each setting is now, and where that comes from",
        examples=("trainctl config explain", "trainctl config explain --context lab"),
    )
    add_output(explain)
    current = add_command(
        group,
        "current-context",
        "config:current_context",
        "show which context is the current one",
        examples=("trainctl config current-context",),
    )
    add_output(current)
    use = add_command(
        group,
        "use-context",
        "config:use_context",
        "make a context the current one; - for none",
        examples=("trainctl config use-context lab",),
    )
    use.add_argument("name", metavar="CONTEXT", help="name of a context, or - for the local installation")
    change = add_command(
        group,
        "set-context",
        "config:set_context",
        "add a context, change it, or remove it",
        examples=(
            "trainctl config set-context lab --address 127.0.0.1:7070 --token-file ~/lab.token",
            "trainctl config set-context lab --remove",
        ),
    )
    change.add_argument("name", metavar="CONTEXT", help="name of the context")
    change.add_argument("--remove", action="store_true", help="remove it")
