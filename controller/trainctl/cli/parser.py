"""The command line's grammar, and nothing else: no command is imported here (``--help`` has to be instant)."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

from trainctl.core.errors import UsageError

_DESCRIPTION = "Keeps training runs alive on machines that fail: submit a job, watch it, ask why."
_EPILOG = """\
start here:
  trainctl local up                      a controller and two agents on this machine
  trainctl submit -f job.yaml --watch    train, and look on; Ctrl-C only detaches
  trainctl explain NAME                  why it waits, or why it restarted
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports as every other error of the command does."""

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


def _with_spelling(message: str) -> str:
    """Shortens argparse's list of choices to the nearest one where there is one."""
    match = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
    if match is None:
        return message
    choices = re.findall(r"[\w-]+", match[2])
    near = difflib.get_close_matches(match[1], choices, n=1)
    head = message[: match.start()]
    return f'{head}unknown choice "{match[1]}"' + (
        f' (did you mean "{near[0]}"?)' if near else f"; known: {', '.join(choices)}"
    )


def build_parser() -> Parser:
    """The whole grammar. ``options.command`` names the function to run as ``module:function``."""
    parser = Parser(prog="trainctl", description=_DESCRIPTION, epilog=_EPILOG, parents=[_common()])
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    _add_submit(commands)
    _add_reading(commands)
    _add_streams(commands)
    _add_cancel(commands)
    _add_checkpoints(commands)
    _add_local(commands)
    _add_rest(commands)
    return parser


def _common() -> argparse.ArgumentParser:
    """Options that may stand before or after the command, hence without defaults of their own."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    group = common.add_argument_group("connection and output")
    group.add_argument(
        "--address", metavar="HOST:PORT", help="controller (default: $TRAINCTL_ADDRESS, else the local one)"
    )
    group.add_argument(
        "--token-file",
        metavar="FILE",
        help="file with the bearer token (default: $TRAINCTL_TOKEN_FILE, else the local one)",
    )
    group.add_argument("--timeout", metavar="DURATION", help="deadline of one request (default: 10s)")
    group.add_argument("--no-color", action="store_true", help="no colours (also: $NO_COLOR)")
    group.add_argument("--debug", action="store_true", help="show tracebacks")
    return common


def _command(commands: Any, name: str, function: str, summary: str, *, epilog: str = "") -> Parser:
    parser: Parser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + ".", epilog=epilog, parents=[_common()]
    )
    parser.set_defaults(command=function)
    return parser


def _group(commands: Any, name: str, summary: str) -> Any:
    parser: Parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", choices=("table", "json", "yaml", "name"), default="table", help="form of the data on stdout"
    )


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="name or uid of a job")


def _add_submit(commands: Any) -> None:
    parser = _command(
        commands,
        "submit",
        "submit:run",
        "submit a job",
        epilog="example:\n  trainctl submit -f job.yaml --set spec.train.steps=500 --watch\n",
    )
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="job file; - reads stdin")
    parser.add_argument(
        "--set", metavar="PATH=VALUE", action="append", default=[], help="override one field; may be repeated"
    )
    parser.add_argument("--name", metavar="NAME", help="override metadata.name")
    parser.add_argument("--watch", action="store_true", help="look on until it ends; Ctrl-C detaches")
    parser.add_argument("--wait", action="store_true", help="wait until it ends; one line per change of phase")
    parser.add_argument("--dry-run", action="store_true", help="check it and say what would be started; start nothing")
    parser.add_argument(
        "--request-id", metavar="ID", help="send a request again: with the same id it takes effect only once"
    )
    _add_output(parser)


def _add_reading(commands: Any) -> None:
    get = _group(commands, "get", "show jobs, nodes or checkpoints")
    for name, function, summary in (
        ("jobs", "get:jobs", "list the jobs"),
        ("job", "get:job", "show one job"),
        ("nodes", "get:nodes", "list the nodes and their agents"),
        ("checkpoints", "checkpoints:list_checkpoints", "list the committed checkpoints of a job"),
    ):
        parser = _command(get, name, function, summary)
        if name in ("job", "checkpoints"):
            _add_name(parser)
        _add_output(parser)
    for name, function, summary in (
        ("describe", "describe:run", "show all of a job: conditions, members, goodput, recoveries, error"),
        ("explain", "explain:run", "say why a job waits, restarted or failed"),
        ("timeline", "timeline:run", "draw what each recovery spent its time on"),
    ):
        parser = _command(commands, name, function, summary)
        _add_name(parser)
        _add_output(parser)


def _add_streams(commands: Any) -> None:
    watch = _command(commands, "watch", "watch:run", "look on until a job ends; Ctrl-C detaches")
    _add_name(watch)
    _add_output(watch)
    events = _command(commands, "events", "events:run", "show what happened to a job")
    _add_name(events)
    events.add_argument("-w", "--watch", action="store_true", help="go on showing events until the job ends")
    _add_output(events)
    logs = _command(
        commands,
        "logs",
        "logs:run",
        "show what the workers printed",
        epilog="example:\n  trainctl logs NAME -f --rank 0,2-3\n",
    )
    _add_name(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing lines until the job ends")
    which = logs.add_mutually_exclusive_group()
    which.add_argument("--rank", metavar="LIST", help="only these global ranks, such as 0,2-3")
    which.add_argument("--slot", metavar="LIST", help="only these worker slots, such as 0,2-3")
    logs.add_argument("--tail", metavar="N", type=int, default=100, help="newest lines per worker to begin with (100)")
    _add_output(logs)


def _add_cancel(commands: Any) -> None:
    parser = _command(commands, "cancel", "cancel:run", "stop a job for good")
    _add_name(parser)
    parser.add_argument("--checkpoint", action="store_true", help="save a checkpoint first, to go on from later")
    parser.add_argument("--grace", metavar="DURATION", default="30s", help="time for the workers to end (30s)")
    parser.add_argument(
        "-y", "--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on"
    )
    parser.add_argument("--request-id", metavar="ID", help="send a request again: with the same id it acts only once")
    _add_output(parser)


def _add_checkpoints(commands: Any) -> None:
    group = _group(commands, "checkpoints", "list and export checkpoints")
    listing = _command(group, "list", "checkpoints:list_checkpoints", "list the committed checkpoints of a job")
    _add_name(listing)
    _add_output(listing)
    export = _command(
        group, "export", "export:run", "write a checkpoint as a Hugging Face folder that transformers loads"
    )
    export.add_argument("source", metavar="NAME|PATH", help="a job, or the folder or URI of checkpoints")
    export.add_argument("destination", metavar="DEST", help="folder to write; must be empty or not exist")
    export.add_argument("--step", metavar="N", type=int, help="which checkpoint (default: the newest)")
    export.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="cast the weights (default: as saved)"
    )
    export.add_argument("--force", action="store_true", help="replace what is at DEST")


def _add_local(commands: Any) -> None:
    group = _group(commands, "local", "a controller and agents on this machine")
    up = _command(group, "up", "local:up", "start a controller and its agents, or start a stopped one again")
    up.add_argument("--agents", metavar="N", type=int, default=2, help="agents, each one a node (2)")
    up.add_argument("--slots", metavar="K", type=int, default=2, help="workers that each agent can run (2)")
    up.add_argument("--port", metavar="PORT", type=int, default=0, help="port on 127.0.0.1 (default: any that is free)")
    down = _command(
        group, "down", "local:down", "stop the controller, its agents and their workers; keeps the jobs' data"
    )
    down.add_argument("--purge", action="store_true", help="delete jobs, logs and the checkpoints in the folder, too")
    down.add_argument(
        "-y", "--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on"
    )
    status = _command(group, "status", "local:status", "show the controller, agents, workers and jobs of this machine")
    _add_output(status)
    for parser in (up, down, status):
        parser.add_argument(
            "--dir", metavar="FOLDER", help="its folder (default: $TRAINCTL_HOME/local or ~/.trainctl/local)"
        )


def _add_rest(commands: Any) -> None:
    demo = _command(commands, "demo", "demo:run", "train on this machine, lose a worker and an agent, go on, finish")
    demo.add_argument(
        "--corpus", metavar="FOLDER|URL", default="python-stdlib", help="text to train on (python-stdlib)"
    )
    demo.add_argument("--dir", metavar="FOLDER", default="demo-run", help="where the results stay (demo-run)")
    version = _command(commands, "version", "version:run", "show the versions of this command and of the controller")
    version.add_argument("--client", action="store_true", help="of this command only; asks nobody")
    _add_output(version)
    completion = _command(
        commands,
        "completion",
        "completion:run",
        "print a completion script",
        epilog='bash:\n  eval "$(trainctl completion bash)"\n',
    )
    completion.add_argument("shell", choices=("bash",), help="which shell")
