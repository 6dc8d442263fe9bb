"""One run of the command: parse, do, turn whatever happens into an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.grammar.arguments import HelpWanted
from trainctl.cli.grammar.parser import build_parser
from trainctl.cli.grammar.words import check_encoding
from trainctl.cli.terminal.console import Console, OutputError, forget
from trainctl.core.errors import UsageError


def run(arguments: Sequence[str], *, out: TextIO | None, err: TextIO | None, env: Mapping[str, str] | None) -> int:
    """Runs the command that ``arguments`` name and returns its exit code; see ``main.main``."""
    if env is None:
        os.environ.setdefault(
            "GRPC_VERBOSITY", "ERROR"
        )  # gRPC's own notices of a controller that ends are not for people
    environment = dict(os.environ if env is None else env)
    console = Console(_stream(out, sys.stdout), _stream(err, sys.stderr), environment)
    context = Context(options=argparse.Namespace(), console=console, env=environment)
    console.no_color = "--no-color" in arguments
    try:
        if out is None and sys.stdout is None:
            raise OutputError("standard output is closed: nothing was done", hint="to see no output: >/dev/null")
        check_encoding(arguments, environment)
        return _run(context, arguments)
    except KeyboardInterrupt:
        console.say(["", *context.on_interrupt])
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        forget(console.out)  # the reader (head, less) has enough: not an error
        return exit_codes.OK
    except Exception as error:
        from trainctl.cli.failures import report

        return report(context, error, debug="--debug" in arguments)


def _run(context: Context, arguments: Sequence[str]) -> int:
    parser = build_parser()
    if not arguments:
        context.console.complain(parser.format_help().rstrip())
        return exit_codes.USAGE
    try:
        context.options = parser.parse_args(arguments, namespace=argparse.Namespace(parser=parser))
    except HelpWanted as wanted:
        context.console.data(wanted.text.rstrip())
        return exit_codes.OK
    context.console.quiet = getattr(context.options, "quiet", False)
    context.console.verbose = getattr(context.options, "verbose", False)
    command: str = getattr(context.options, "command", "")
    if not command:
        raise UsageError("no command given", hint="`trainctl --help` lists the commands")
    module, _, function = command.partition(":")
    code: int = getattr(importlib.import_module(f"trainctl.cli.commands.{module}"), function)(context)
    return code


def _stream(given: TextIO | None, own: TextIO | None) -> TextIO:
    """The stream to write to; a process whose stdout was closed has none."""
    return given or own or open(os.devnull, "w", encoding="utf-8")
