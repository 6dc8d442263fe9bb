"""Building blocks of the grammar: a parser that reports as every other error does, commands, groups, shared options."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from trainctl.cli.grammar.forms import output_form
from trainctl.cli.grammar.words import job_name, request_id
from trainctl.core.errors import UsageError
from trainctl.core.texts import shortened


class HelpWanted(Exception):  # noqa: N818 - not an error
    """``--help`` was given."""

    def __init__(self, text: str) -> None:
        super().__init__("help")
        self.text = text


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that leaves all writing and exiting to others."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Raises instead of exiting.

        Raises:
            UsageError: always.
        """
        raise UsageError(_with_spelling(message), hint=f"{self.prog} --help shows how it is used")

    def print_help(self, file: object = None) -> None:
        """Raises instead of writing past the command's own streams.

        Raises:
            HelpWanted: always.
        """
        raise HelpWanted(self.format_help())


def _with_spelling(message: str) -> str:
    """Shortens argparse's list of choices to the nearest one where there is one."""
    match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if match is None:
        return message
    choices = [choice for choice in re.findall(r"[\w-]+", match[2]) if not choice.startswith("_")]
    near = difflib.get_close_matches(match[1], choices, n=1)
    head = message[: match.start()]
    return f'{head}unknown choice "{shortened(match[1])}"' + (
        f' (did you mean "{near[0]}"?)' if near else f"; known: {', '.join(choices)}"
    )


def common() -> argparse.ArgumentParser:
    """Options that may stand before or after the command, hence without defaults of their own."""
    parser = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = parser.add_argument_group("connection and output")
    group.add_argument(
        "--context",
        metavar="NAME",
        help="context of the config file (default: $TRAINCTL_CONTEXT, else its current one)",
    )
    group.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="controller (default: $TRAINCTL_ADDRESS, else the context's, else the local one)",
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the bearer token (default: $TRAINCTL_TOKEN_FILE, else the context's, else the local one)",
    )
    group.add_argument(
        "--ca-file",
        metavar="FILE",
        help="whom to trust, so that connections are encrypted (default: $TRAINCTL_CA_FILE, else the context's, else "
        "the local one)",
    )
    group.add_argument(
        "--insecure",
        action="store_true",
        help="send the token to another machine unencrypted (also: $TRAINCTL_INSECURE=1)",
    )
    group.add_argument(
        "--tenant",
        metavar="TENANT",
        help="whose jobs (default: $TRAINCTL_TENANT, else the context's, else the token's only one, else default)",
    )
    group.add_argument(
        "--timeout", metavar="DURATION", help="deadline of one request (default: $TRAINCTL_TIMEOUT, else 10s)"
    )
    group.add_argument("-q", "--quiet", action="store_true", help="nothing but data and errors")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="say which controller is asked what, and how long it takes"
    )
    group.add_argument("--no-color", action="store_true", help="no colours (also: $NO_COLOR)")
    group.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser


def add_command(commands: Any, name: str, function: str, summary: str, *, examples: Sequence[str]) -> Parser:
    """Adds a command. ``function`` is what runs, as ``module:function`` below ``trainctl.cli.commands``."""
    parser: Parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=_epilog(examples),
        parents=[common()],
    )
    parser.set_defaults(command=function)
    return parser


def _epilog(examples: Sequence[str]) -> str:
    title = "example" if len(examples) == 1 else "examples"
    return "\n  ".join([f"{title}:", *examples]) + "\n"


def add_group(commands: Any, name: str, summary: str, *, examples: Sequence[str]) -> Any:
    """Adds a word that more commands stand behind."""
    description = summary[0].upper() + summary[1:] + "."
    parser: Parser = commands.add_parser(name, help=summary, description=description, epilog=_epilog(examples))
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)


def add_output(parser: argparse.ArgumentParser, *more: str) -> None:
    """Adds ``-o``; ``more`` are forms that only this command has."""
    words = "|".join(("table", "wide", "name", "json", "yaml", "jsonpath=EXPR", "custom-columns=A:.x,B:.y", *more))
    parser.add_argument(
        "-o",
        "--output",
        metavar="FORM",
        type=lambda text: output_form(text, more),
        default="table",
        help=f"form of the data on stdout: {words}",
    )


def add_name(parser: argparse.ArgumentParser, *, prefix: bool = True) -> None:
    """Adds the name of a job; a command that only reads takes the beginning of one, too."""
    how = ", or its beginning if only one job has that" if prefix else ""
    parser.add_argument("name", metavar="NAME", type=job_name, help=f"name or uid of a job{how}")


def add_place(parser: argparse.ArgumentParser, *, prefix: bool = True) -> None:
    """Adds what names checkpoints: a job as ``add_name`` has it, or a folder, which no controller is asked about."""
    how = ", or its beginning if only one job has that" if prefix else ""
    where = (
        "or a folder or URI with a slash in it (./name), of one checkpoint or of many, for which no controller is asked"
    )
    parser.add_argument("name", metavar="NAME|PATH", type=job_name, help=f"name or uid of a job{how}; {where}")


def add_request_id(parser: argparse.ArgumentParser) -> None:
    """Adds ``--request-id``."""
    parser.add_argument(
        "--request-id",
        metavar="ID",
        type=request_id,
        help="send a request again: with the same id it takes effect only once",
    )
