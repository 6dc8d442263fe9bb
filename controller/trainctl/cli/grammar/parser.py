"""The command line's grammar, and nothing else: no command is imported here (``--help`` has to be instant)."""

from __future__ import annotations

from typing import Any

from trainctl.cli.grammar.access import add_access
from trainctl.cli.grammar.arguments import (
    Parser,
    add_command,
    add_group,
    add_name,
    add_output,
    add_place,
    add_request_id,
    common,
)
from trainctl.cli.grammar.checkpoints import add_checkpoints
from trainctl.cli.grammar.config import add_config
from trainctl.cli.grammar.operate import add_operations
from trainctl.cli.grammar.words import job_name

_DESCRIPTION = "Keeps training runs alive on machines that fail: submit a job, watch it, ask why."
_EPILOG = """\
start here:
  trainctl local up                      a controller and two agents on this machine
  trainctl submit -f job.yaml --watch    train, and look on; Ctrl-C only detaches
  trainctl explain NAME                  why it waits, or why it restarted
  trainctl doctor                        what is wrong with this machine or the controller
"""


def build_parser() -> Parser:
    """The whole grammar. ``options.command`` names the function to run as ``module:function``."""
    parser = Parser(prog="trainctl", description=_DESCRIPTION, epilog=_EPILOG, parents=[common()])
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    _add_submit(commands)
    _add_reading(commands)
    _add_streams(commands)
    _add_cancel(commands)
    add_operations(commands)
    add_checkpoints(commands)
    _add_local(commands)
    _add_doctor(commands)
    _add_rest(commands)
    add_access(commands)
    add_config(commands)
    return parser


def _add_submit(commands: Any) -> None:
    parser = add_command(
        commands,
        "submit",
        "submit:run",
        "submit a job",
        examples=(
            "trainctl submit -f job.yaml --set spec.train.steps=500 --watch",
            "trainctl submit -f job.yaml --wait=RUNNING -o name",
            "trainctl submit -f job.yaml --dry-run",
        ),
    )
    parser.add_argument("-f", "--file", metavar="FILE", required=True, help="job file; - reads stdin")
    parser.add_argument(
        "--set", metavar="PATH=VALUE", action="append", default=[], help="override one field; may be repeated"
    )
    parser.add_argument("--name", metavar="NAME", help="override metadata.name")
    after = parser.add_mutually_exclusive_group()
    after.add_argument("--watch", action="store_true", help="look on until it ends; Ctrl-C detaches")
    after.add_argument(
        "--wait",
        metavar="PHASE",
        nargs="?",
        const="",
        help="wait until it ends or, with --wait=PHASE, is in that phase; one line per change of phase",
    )
    after.add_argument(
        "--dry-run",
        choices=("client", "server"),
        nargs="?",
        const="server",
        help="check it and say what would be started; start nothing. client: check the file without a controller",
    )
    add_request_id(parser)
    add_output(parser)


def _add_reading(commands: Any) -> None:
    _add_get(commands)
    describe = add_command(
        commands,
        "describe",
        "describe:run",
        "show all of a job: conditions, members, goodput, recoveries, error; or of a node",
        examples=("trainctl describe first", "trainctl describe node node-0"),
    )
    describe.add_argument(
        "words",
        metavar="NAME",
        nargs="+",
        type=job_name,
        help="name or uid of a job, or its beginning if only one job has that; or the word node and a node's name",
    )
    add_output(describe)
    explain = add_command(
        commands,
        "explain",
        "explain:run",
        "say why a job waits, restarted or failed",
        examples=("trainctl explain first",),
    )
    add_name(explain)
    add_output(explain)
    timeline = add_command(
        commands,
        "timeline",
        "timeline:run",
        "draw what each recovery spent its time on; chrome-trace is for ui.perfetto.dev and chrome://tracing",
        examples=("trainctl timeline first", "trainctl timeline first -o chrome-trace > first.json"),
    )
    add_name(timeline)
    add_output(timeline, "chrome-trace")


def _add_get(commands: Any) -> None:
    get = add_group(
        commands,
        "get",
        "show jobs, nodes or checkpoints",
        examples=("trainctl get jobs", "trainctl get job first -o yaml", "trainctl get nodes -w"),
    )
    for name, function, summary, examples in (
        (
            "jobs",
            "get:jobs",
            "list the jobs",
            (
                "trainctl get jobs -l team=nlp --filter '.status.phase==\"RUNNING\"'",
                "trainctl get jobs -o custom-columns=JOB:.spec.metadata.name,STEP:.status.step",
                "trainctl get jobs -w",
            ),
        ),
        ("job", "get:job", "show one job", ("trainctl get job first -o yaml --show-defaults",)),
        ("nodes", "get:nodes", "list the nodes and their agents", ("trainctl get nodes -o wide",)),
        (
            "checkpoints",
            "checkpoints:list_checkpoints",
            "list the committed checkpoints of a job, or of a folder",
            ("trainctl get checkpoints first -o jsonpath=.checkpoints[-1].uri",),
        ),
    ):
        parser = add_command(get, name, function, summary, examples=examples)
        if name == "job":
            add_name(parser)
        if name == "checkpoints":
            add_place(parser)
        if name == "jobs":
            parser.add_argument(
                "name", metavar="NAME", nargs="?", type=job_name, help="only this one, as `get job` does"
            )
            parser.add_argument(
                "-l", "--selector", metavar="LABELS", help="only jobs with these labels: a=b, a!=b, a, !a; by commas"
            )
            parser.add_argument(
                "--filter", metavar="EXPR", help="only jobs for which this holds, such as '.status.step>10'"
            )
        if name in ("job", "jobs"):
            parser.add_argument(
                "--show-defaults",
                action="store_true",
                help="json and yaml: also the fields with defaults",
            )
        parser.add_argument("-w", "--watch", action="store_true", help="go on showing what changes; Ctrl-C ends it")
        add_output(parser)


def _add_streams(commands: Any) -> None:
    watch = add_command(
        commands, "watch", "watch:run", "look on until a job ends; Ctrl-C detaches", examples=("trainctl watch first",)
    )
    add_name(watch)
    add_output(watch)
    events = add_command(
        commands,
        "events",
        "events:run",
        "show what happened to a job",
        examples=("trainctl events first --since 10m", "trainctl events first -w -o json"),
    )
    add_name(events)
    events.add_argument("-w", "--watch", action="store_true", help="go on showing events until the job ends")
    events.add_argument("--since", metavar="WHEN", help="only newer ones: an age such as 10m, or an RFC 3339 time")
    add_output(events)
    _add_logs(commands)
    _add_plot(commands)


def _add_plot(commands: Any) -> None:
    plot = add_command(
        commands,
        "plot",
        "plot:run",
        "draw curves of a job, with its recoveries marked, in the terminal or into a file",
        examples=(
            "trainctl plot first",
            "trainctl plot first -o png",
            "trainctl plot first --metric gradient_norm,step_s -o curves.svg",
        ),
    )
    add_name(plot)
    plot.add_argument(
        "--metric",
        metavar="LIST",
        default="loss,eval_loss,tokens_per_s",
        help="what to draw (loss,eval_loss,tokens_per_s): loss, eval_loss, tokens_per_s, learning_rate, gradient_norm, "
        "step_s, reduce_s, vote_s",
    )
    plot.add_argument(
        "-o", "--output", metavar="png|FILE", help="a picture: NAME.png (or svg, pdf), or the file named here"
    )


def _add_logs(commands: Any) -> None:
    logs = add_command(
        commands,
        "logs",
        "logs:run",
        "show what the workers printed, as they printed it: lines have no level to choose by",
        examples=(
            "trainctl logs first -f --rank 0,2-3",
            "trainctl logs first --since 10m --timestamps",
            "trainctl logs first --rank 1 --attempt last",
        ),
    )
    add_name(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing lines until the job ends")
    which = logs.add_mutually_exclusive_group()
    which.add_argument("--rank", metavar="LIST", help="only these global ranks, such as 0,2-3; or all")
    which.add_argument("--slot", metavar="LIST", help="only these worker slots, such as 0,2-3; or all")
    logs.add_argument(
        "--attempt",
        "--incarnation",
        metavar="N",
        default="all",
        help="only one life of the workers: last, or an incarnation as `describe -o json` shows it (all)",
    )
    logs.add_argument("--since", metavar="WHEN", help="only newer lines: an age such as 10m, or an RFC 3339 time")
    logs.add_argument(
        "--tail", metavar="N", type=int, help="newest lines per worker to begin with (100; all with --since)"
    )
    logs.add_argument("--timestamps", action="store_true", help="when each line was printed, in front of it")
    add_output(logs)


def _add_cancel(commands: Any) -> None:
    parser = add_command(
        commands, "cancel", "cancel:run", "stop a job for good", examples=("trainctl cancel first --checkpoint -y",)
    )
    add_name(parser, prefix=False)
    parser.add_argument("--checkpoint", action="store_true", help="save a checkpoint first, to go on from later")
    parser.add_argument("--grace", metavar="DURATION", default="30s", help="time for the workers to end (30s)")
    parser.add_argument(
        "-y", "--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on"
    )
    add_request_id(parser)
    add_output(parser)


def _add_local(commands: Any) -> None:
    group = add_group(
        commands,
        "local",
        "a controller and agents on this machine",
        examples=("trainctl local up", "trainctl local status", "trainctl local down"),
    )
    up = add_command(
        group,
        "up",
        "local:up",
        "start a controller and its agents, or start a stopped one again",
        examples=("trainctl local up --agents 2 --slots 4",),
    )
    up.add_argument("--agents", metavar="N", type=int, default=2, help="agents, each one a node (2)")
    up.add_argument("--slots", metavar="K", type=int, default=2, help="workers that each agent can run (2)")
    up.add_argument("--port", metavar="PORT", type=int, default=0, help="port on 127.0.0.1 (default: any that is free)")
    up.add_argument(
        "--secrets", metavar="DIR", help="folder of the values that jobs want by spec.secretEnv, a file each"
    )
    up.add_argument("--tls", action="store_true", help="encrypt connections, as where agents come from other machines")
    up.add_argument(
        "--accept-store",
        action="store_true",
        help="act on a state store that was restored from a backup, or had another token or certificate authority; "
        "workers that it does not know of are ended",
    )
    down = add_command(
        group,
        "down",
        "local:down",
        "stop the controller, its agents and their workers; keeps the jobs' data",
        examples=("trainctl local down", "trainctl local down --purge -y"),
    )
    down.add_argument("--purge", action="store_true", help="delete jobs, logs and the checkpoints in the folder, too")
    down.add_argument(
        "-y", "--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on"
    )
    status = add_command(
        group,
        "status",
        "local:status",
        "show the controller, agents, workers and jobs of this machine",
        examples=("trainctl local status",),
    )
    add_output(status)
    for parser in (up, down, status):
        parser.add_argument(
            "--dir", metavar="FOLDER", help="its folder (default: $TRAINCTL_HOME/local or ~/.trainctl/local)"
        )


def _add_doctor(commands: Any) -> None:
    doctor = add_command(
        commands,
        "doctor",
        "doctor:run",
        "check this machine, the controller and, with --job, what a job needs; each finding comes with a remedy",
        examples=(
            "trainctl doctor",
            "trainctl doctor --job first -o json",
            "trainctl doctor --storage s3://bucket/runs",
            "trainctl doctor --file job.yaml --secrets DIR",
        ),
    )
    doctor.add_argument("--job", metavar="NAME", type=job_name, help="check also what this job needs")
    doctor.add_argument(
        "--storage",
        metavar="URI",
        action="append",
        default=[],
        help="write a small file there, read it back, list and remove it; may be repeated (default: where jobs save)",
    )
    doctor.add_argument(
        "-f", "--file", metavar="FILE", help="reach storage as this job would: by its spec.env and spec.secretEnv"
    )
    doctor.add_argument(
        "--secrets",
        metavar="DIR",
        help="folder of the values of spec.secretEnv (default: what the agents of this machine were given)",
    )
    add_output(doctor)


def _add_rest(commands: Any) -> None:
    demo = add_command(
        commands,
        "demo",
        "demo:run",
        "train on this machine, lose a worker and an agent, go on, finish",
        examples=("trainctl demo --corpus ./texts",),
    )
    demo.add_argument(
        "--corpus", metavar="FOLDER|URL", default="python-stdlib", help="text to train on (python-stdlib)"
    )
    demo.add_argument("--dir", metavar="FOLDER", default="demo-run", help="where the results stay (demo-run)")
    version = add_command(
        commands,
        "version",
        "version:run",
        "show the versions of this command and of the controller",
        examples=("trainctl version --client -o name",),
    )
    version.add_argument("--client", action="store_true", help="of this command only; asks nobody")
    add_output(version)
    completion = add_command(
        commands,
        "completion",
        "completion:run",
        "print a completion script, or install it",
        examples=("trainctl completion bash --install", 'eval "$(trainctl completion bash)"'),
    )
    completion.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    completion.add_argument("--install", action="store_true", help="put it where the shell looks for it")
    hidden = commands.add_parser("__complete", add_help=False, parents=[common()])
    hidden.add_argument("words", nargs="*")
    hidden.set_defaults(command="complete:run")
