"""The grammar of ``trainctl checkpoints``."""

from __future__ import annotations

from typing import Any

from trainctl.cli.grammar.arguments import Parser, add_command, add_group, add_output, add_place, add_request_id
from trainctl.cli.grammar.operate import add_yes


def add_checkpoints(commands: Any) -> None:
    """Adds the group."""
    group = add_group(
        commands,
        "checkpoints",
        "list, describe, verify, export, import, pin and remove checkpoints",
        examples=(
            "trainctl checkpoints list first",
            "trainctl checkpoints verify first --step 200",
            "trainctl checkpoints verify ./runs/first",
            "trainctl checkpoints export first ./model",
        ),
    )
    listing = add_command(
        group,
        "list",
        "checkpoints:list_checkpoints",
        "list the committed checkpoints of a job, or of a folder, and those that were refused as damaged",
        examples=("trainctl checkpoints list first", "trainctl checkpoints list s3://bucket/runs/first"),
    )
    add_place(listing)
    add_output(listing)
    listing.set_defaults(watch=False)
    _add_reading(group)
    _add_export(group)
    _add_import(group)
    _add_keeping(group)


def _add_reading(group: Any) -> None:
    for name, function, summary, examples in (
        (
            "describe",
            "checkpoint:describe",
            "show what the manifest of a checkpoint says: files, sizes, parent, and whether a roll-back takes it",
            (
                "trainctl checkpoints describe first",
                "trainctl checkpoints describe first --step 200 -o json",
                "trainctl checkpoints describe ./runs/first",
            ),
        ),
        (
            "verify",
            "checkpoint_verify:verify",
            "read every file of a checkpoint and compare it with the digests of its manifest; mark a damaged one",
            (
                "trainctl checkpoints verify first --step 200",
                "trainctl checkpoints verify first --step 200 --accept",
                "trainctl checkpoints verify ./runs/first/step-000000000200",
            ),
        ),
    ):
        parser = add_command(group, name, function, summary, examples=examples)
        add_place(parser)
        _add_newest(parser)
        if name == "verify":
            parser.add_argument(
                "--accept",
                action="store_true",
                help="if it was refused as damaged and is whole now, take the refusal back (needs the role operator; "
                "in a folder it is taken back without this)",
            )
            add_request_id(parser)
        add_output(parser)


def _add_export(group: Any) -> None:
    export = add_command(
        group,
        "export",
        "export:run",
        "write a checkpoint as a Hugging Face folder that transformers loads",
        examples=("trainctl checkpoints export first ./model --dtype bfloat16",),
    )
    export.add_argument("source", metavar="NAME|PATH", help="a job, or the folder or URI of checkpoints")
    export.add_argument("destination", metavar="DEST", help="folder to write; must be empty or not exist")
    _add_newest(export)
    export.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="cast the weights (default: as saved)"
    )
    export.add_argument("--force", action="store_true", help="replace what is at DEST")


def _add_import(group: Any) -> None:
    parser = add_command(
        group,
        "import",
        "importing:run",
        "make a checkpoint of a torch DCP or Hugging Face folder, without running anything of it",
        examples=(
            "trainctl checkpoints import /models/llama ./imported",
            "trainctl checkpoints import ./torchtitan/step-500 ./imported --step 500 --samples 32000",
            "trainctl checkpoints import ./dcp ./imported --strip-prefix module. --parameters-only",
        ),
    )
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder with .metadata, with shard-*.safetensors of DCP, or with model.safetensors or its index",
    )
    parser.add_argument("target", metavar="TARGET", help="folder to write; must be empty or not exist")
    parser.add_argument(
        "--step", metavar="N", type=int, default=0, help="step that the state is at; a job goes on there (default: 0)"
    )
    parser.add_argument(
        "--samples", metavar="N", type=int, default=0, help="samples of its data that a job skips (default: 0)"
    )
    parser.add_argument(
        "--section", metavar="NAME", default="", help="which part of a nested dict the parameters are (a dot: its top)"
    )
    parser.add_argument(
        "--strip-prefix", metavar="PREFIX", default="", help="take it from the names of parameters that begin with it"
    )
    parser.add_argument(
        "--exclude",
        metavar="GLOB",
        action="append",
        default=[],
        help="leave tensors of such names out; may be repeated",
    )
    parser.add_argument("--parameters-only", action="store_true", help="leave the optimizer's state out")


def _add_keeping(group: Any) -> None:
    for name, summary in (
        ("rm", "remove one checkpoint with its files, unless its job may have to go back to it"),
        ("pin", "keep a checkpoint, however old: neither retention nor `checkpoints rm` removes it"),
        ("unpin", "let retention remove a pinned checkpoint again"),
    ):
        yes = " -y" if name == "rm" else ""
        examples = tuple(f"trainctl checkpoints {name} {place} --step 200{yes}" for place in ("first", "./runs/first"))
        parser = add_command(group, name, f"checkpoint_keeping:{name}", summary, examples=examples)
        add_place(parser, prefix=False)
        parser.add_argument(
            "--step", metavar="S", type=int, help="step of the checkpoint; needed unless PATH is that of one alone"
        )
        if name == "rm":
            add_yes(parser)
        add_request_id(parser)
        add_output(parser)


def _add_newest(parser: Parser) -> None:
    parser.add_argument("--step", metavar="N", type=int, help="which checkpoint (default: the newest)")
