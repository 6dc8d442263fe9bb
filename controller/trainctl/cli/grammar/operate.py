"""The grammar of what changes jobs and nodes that live, such as scale, pause, roll back and drain; and of ``top``."""

from __future__ import annotations

import argparse
from typing import Any

from trainctl.cli.grammar.arguments import add_command, add_group, add_name, add_output, add_request_id
from trainctl.cli.grammar.join import add_join_tokens
from trainctl.cli.grammar.words import job_name, node_name

_NODE = "name of a node, as `trainctl nodes list` shows it"


def add_operations(commands: Any) -> None:
    """Adds the commands."""
    _add_scale(commands)
    _add_halts(commands)
    _add_rollback(commands)
    _add_delete(commands)
    _add_top(commands)
    _add_nodes(commands)


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Adds ``-y``."""
    parser.add_argument(
        "-y", "--yes", action="store_true", help="do not ask; needed where there is no terminal to ask on"
    )


def _add_scale(commands: Any) -> None:
    scale = add_command(
        commands,
        "scale",
        "operate:scale",
        "change how many nodes a job may have; it grows or shrinks at a step boundary",
        examples=("trainctl scale first --max 4", "trainctl scale first --min 1 --target 2"),
    )
    add_name(scale, prefix=False)
    scale.add_argument("--min", metavar="A", type=int, help="fewest nodes that it goes on with")
    scale.add_argument("--max", metavar="B", type=int, help="most nodes")
    scale.add_argument("--target", metavar="N", type=int, help="nodes that it should run on (default: as before)")
    add_request_id(scale)
    add_output(scale)


def _add_halts(commands: Any) -> None:
    pause = add_command(
        commands,
        "pause",
        "operate:pause",
        "save a checkpoint, stop the workers of a job and give their slots back",
        examples=("trainctl pause first",),
    )
    resume = add_command(
        commands,
        "resume",
        "operate:resume",
        "let a paused job go on from where it was paused",
        examples=("trainctl resume first",),
    )
    restart = add_command(
        commands,
        "restart",
        "operate:restart",
        "give a job new worker processes, which go on from a checkpoint saved for it",
        examples=("trainctl restart first", "trainctl restart first -y"),
    )
    for parser in (pause, resume, restart):
        add_name(parser, prefix=False)
        if parser is restart:
            parser.add_argument(
                "-y",
                "--yes",
                action="store_true",
                help="where nothing can be saved, go on from the newest checkpoint without asking",
            )
        add_request_id(parser)
        add_output(parser)


def _add_rollback(commands: Any) -> None:
    rollback = add_command(
        commands,
        "rollback",
        "operate:rollback",
        "let a job go on from an older checkpoint and give up what came after it",
        examples=("trainctl rollback first", "trainctl rollback first --to-step 200 -y"),
    )
    add_name(rollback, prefix=False)
    rollback.add_argument(
        "--to-step", metavar="S", type=int, help="step of a committed checkpoint (default: the one before the newest)"
    )
    add_yes(rollback)
    add_request_id(rollback)
    add_output(rollback)


def _add_delete(commands: Any) -> None:
    delete = add_command(
        commands,
        "delete",
        "delete:run",
        "remove a job that has ended: its record, events, figures, logs, work folder and checkpoints",
        examples=("trainctl delete first -y", "trainctl delete first --keep-checkpoints -y"),
    )
    add_name(delete, prefix=False)
    delete.add_argument("--force", action="store_true", help="also one that has not ended: it is cancelled first")
    delete.add_argument("--keep-checkpoints", action="store_true", help="leave its checkpoints where they are")
    add_yes(delete)
    add_request_id(delete)
    add_output(delete)


def _add_top(commands: Any) -> None:
    top = add_command(
        commands,
        "top",
        "top:run",
        "show all jobs, or the workers of one, as a table that follows them; once where there is no terminal",
        examples=("trainctl top", "trainctl top first"),
    )
    top.add_argument("name", metavar="NAME", nargs="?", type=job_name, help="show the workers of this job")
    add_output(top)


def _add_nodes(commands: Any) -> None:
    group = add_group(
        commands,
        "nodes",
        "list and describe nodes, and take work away from them",
        examples=("trainctl nodes list", "trainctl nodes describe node-0", "trainctl nodes drain node-0 --wait"),
    )
    listing = add_command(
        group, "list", "get:nodes", "list the nodes and their agents", examples=("trainctl nodes list -o wide",)
    )
    add_output(listing)
    listing.set_defaults(watch=False)
    describe = add_command(
        group,
        "describe",
        "nodes:describe",
        "show one node, with the jobs that have workers on it",
        examples=("trainctl nodes describe node-0",),
    )
    describe.add_argument("node", metavar="NODE", type=node_name, help=_NODE)
    add_output(describe)
    add_join_tokens(group)
    _add_marks(group, "trainctl nodes")
    _add_marks(commands, "trainctl")


def _add_marks(commands: Any, before: str) -> None:
    """What an operator says of a node; spelled with and without the word ``nodes``."""
    for name, summary, words in (
        ("cordon", "give a node no new work; what runs on it goes on", "cordon node-0"),
        ("uncordon", "give a node work again", "uncordon node-0"),
        ("drain", "give a node no new work and move its workers away in good order", "drain node-0 --wait"),
    ):
        parser = add_command(commands, name, f"nodes:{name}", summary, examples=(f"{before} {words}",))
        parser.add_argument("node", metavar="NODE", type=node_name, help=_NODE)
        if name == "drain":
            parser.add_argument("--wait", action="store_true", help="until no worker is left on it; Ctrl-C detaches")
        add_request_id(parser)
        add_output(parser)
