"""Entry point: parse, run one command, turn whatever happens into an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from trainctl.cli import exit_codes
from trainctl.cli.console import Console
from trainctl.cli.context import Context
from trainctl.cli.parser import build_parser
from trainctl.core.errors import UsageError


def main(
    argv: Sequence[str] | None = None,
    *,
    out: TextIO | None = None,
    err: TextIO | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Runs ``trainctl``; the streams and the environment can be given by a test. Returns the exit code."""
    environment = dict(os.environ if env is None else env)
    console = Console(out or sys.stdout, err or sys.stderr, environment)
    context = Context(options=argparse.Namespace(), console=console, env=environment)
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    console.no_color = "--no-color" in arguments
    try:
        return _run(context, arguments)
    except KeyboardInterrupt:
        console.say(["", *context.on_interrupt])
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        _forget(console.out)  # the reader (head, less) has enough: not an error
        return exit_codes.OK
    except SystemExit as end:  # argparse after --help
        return end.code if isinstance(end.code, int) else exit_codes.FAILURE
    except Exception as error:
        from trainctl.cli.failures import report

        return report(context, error, debug=debug)


def _run(context: Context, arguments: Sequence[str]) -> int:
    parser = build_parser()
    if not arguments:
        context.console.say(parser.format_help().rstrip())
        return exit_codes.USAGE
    context.options = parser.parse_args(arguments, namespace=argparse.Namespace(parser=parser))
    command: str = getattr(context.options, "command", "")
    if not command:
        raise UsageError("no command given", hint="trainctl --help lists the commands")
    module, _, function = command.partition(":")
    code: int = getattr(importlib.import_module(f"trainctl.cli.commands.{module}"), function)(context)
    return code


def _forget(stream: TextIO) -> None:
    """Makes the flush at exit harmless for a stream whose reader is gone."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except (OSError, ValueError):
        return


if __name__ == "__main__":
    sys.exit(main())
