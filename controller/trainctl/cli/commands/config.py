"""``trainctl config ...``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.config.file import ConfigFile, check, read_config, write_config
from trainctl.cli.config.settings import CONTEXT, SETTINGS, Found, resolve
from trainctl.cli.connection.connecting import MAX_TIMEOUT_S, check_address, duration_option_s
from trainctl.cli.connection.tenant import check_tenant
from trainctl.cli.context import Context
from trainctl.cli.output import emit
from trainctl.cli.terminal.style import table
from trainctl.core.errors import NotFoundError, Problem, SpecError, UsageError
from trainctl.core.texts import quoted

_NONE = "-"


def view(context: Context) -> int:
    """Shows the config file."""
    config = read_config(context.env)
    rows = [
        ("*" if name == config.current else "", name, entries.get("address", "-"), entries.get("tokenFile", "-"))
        for name, entries in config.contexts.items()
    ]
    if not rows:
        context.console.say(f"no contexts in {config.path}; `trainctl config set-context` adds one")
    style = context.console.style()
    emit(
        context,
        config.data(),
        table=lambda: table(("CURRENT", "CONTEXT", "ADDRESS", "TOKEN FILE"), rows, style=style) if rows else [],
        names=config.contexts,
    )
    return exit_codes.OK


def explain(context: Context) -> int:
    """Shows each setting with its value and its origin."""
    settings = resolve(context)
    home = context.env.get("TRAINCTL_HOME")
    rows: list[tuple[str, Found, str]] = [(CONTEXT.name, settings.context, CONTEXT.meaning)]
    rows += [(setting.name, settings[setting.name], setting.meaning) for setting in SETTINGS]
    run_dir = Found(value=str(context.run_dir), origin="TRAINCTL_HOME" if home else "default")
    file = Found(value=str(read_config(context.env).path or ""), origin=_config_origin(context))
    rows += [("localInstallation", run_dir, ""), ("configFile", file, "none")]
    style = context.console.style()
    emit(
        context,
        {"settings": [{"name": name, "value": found.value or None, "origin": found.origin} for name, found, _ in rows]},
        table=lambda: table(
            ("SETTING", "VALUE", "FROM"),
            [(name, found.value or f"({meaning or 'none'})", found.origin) for name, found, meaning in rows],
            style=style,
        ),
        names=[name for name, _, _ in rows],
    )
    return exit_codes.OK


def _config_origin(context: Context) -> str:
    known = ("TRAINCTL_CONFIG", "XDG_CONFIG_HOME")
    return next((variable for variable in known if variable in context.env), "default")


def current_context(context: Context) -> int:
    """Shows the current context; fails if there is none, so that scripts see it."""
    current = resolve(context).context
    if not current.value:
        raise NotFoundError("there is no current context", hint="`trainctl config use-context NAME` chooses one")
    data = {"context": current.value, "origin": current.origin}
    emit(context, data, table=lambda: [current.value], names=[current.value])
    return exit_codes.OK


def use_context(context: Context) -> int:
    """Makes a context the current one."""
    config, name = read_config(context.env), context.options.name
    if name != _NONE and name not in config.contexts:
        raise _unknown(config, name)
    write_config(replace(config, current="" if name == _NONE else name))
    context.console.data(
        "no context: the local installation" if name == _NONE else f"context {name} is the current one"
    )
    return exit_codes.OK


def set_context(context: Context) -> int:
    """Adds, changes or removes a context; what is not named stays as it is."""
    config, options = read_config(context.env), context.options
    name = options.name
    changes = _changes(options)
    contexts = {known: dict(entries) for known, entries in config.contexts.items()}
    if options.remove:
        if changes:
            raise UsageError("--remove goes with no other setting", hint=f"trainctl config set-context {name} --remove")
        if name not in contexts:
            raise _unknown(config, name)
        del contexts[name]
        write_config(replace(config, contexts=contexts, current="" if config.current == name else config.current))
        context.console.data(f"context {name} removed from {config.path}")
        return exit_codes.OK
    if not name or name == _NONE or not changes:
        raise UsageError(
            "expected the name of a context and something to set",
            hint="for example trainctl config set-context lab --address 127.0.0.1:7070",
        )
    contexts[name] = {**contexts.get(name, {}), **_checked(changes)}
    changed = replace(config, contexts=contexts)
    problems = tuple(Problem(path=where, message=message) for where, message in check(changed.data()))
    if problems:
        raise SpecError(problems, source="the context", hint="nothing was written; set what is named here anew")
    write_config(changed)
    context.console.data(f"context {name} written to {config.path}")
    if name != config.current:
        context.console.say(f"take it with --context {name}, or from now on: trainctl config use-context {name}")
    return exit_codes.OK


def _changes(options: argparse.Namespace) -> dict[str, str]:
    flags = {
        "address": "address",
        "tokenFile": "token_file",
        "tenant": "tenant",
        "timeout": "timeout",
        "caFile": "ca_file",
    }
    return {key: str(value) for key, option in flags.items() if (value := getattr(options, option, None))}


def _checked(changes: Mapping[str, str]) -> dict[str, str]:
    """What is written down must be right wherever it is read: files are seen from here only now.

    Raises:
        UsageError: the address or the deadline cannot be right.
    """
    if "address" in changes:
        check_address(changes["address"], "--address")
    if "tenant" in changes:
        check_tenant(changes["tenant"], "--tenant")
    if "timeout" in changes:
        duration_option_s("--timeout", changes["timeout"], most_s=MAX_TIMEOUT_S)
    files = {key: str(Path(changes[key]).expanduser().absolute()) for key in ("tokenFile", "caFile") if key in changes}
    return {**changes, **files}


def _unknown(config: ConfigFile, name: str) -> NotFoundError:
    known = ", ".join(config.contexts) or "none"
    return NotFoundError(
        f"there is no context {quoted(name)} in {config.path}; known: {known}",
        hint="`trainctl config set-context` adds one",
    )
