"""Rules about ``spec.command`` and ``spec.launch``, and about what makes no sense beside them."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.core.findings import Finding, duration, one_of
from trainctl.core.records.spec import (
    HEARTBEAT,
    LOG,
    SESSION,
    TORCHRUN,
    CheckpointSpec,
    HangSpec,
    LaunchSpec,
    ResultsSpec,
    TrainJob,
)
from trainctl.core.records.train_spec import TrainSpec
from trainctl.core.texts import shortened
from trainctl.core.units import parse_duration_s
from trainctl.parallel.plan.command_env import RESERVED
from trainctl.parallel.plan.program import EXPECTED as PYTHON_PROGRAM
from trainctl.parallel.plan.program import python_program

_LEAST_SILENCE_S = 1.0


def command_rules(job: TrainJob) -> Iterator[Finding]:
    """Everything about commands; nothing for a job of the built-in loop that does not mention them."""
    yield from _launch(job)
    if job.spec.command:
        yield from _words(job)
        if job.spec.train != TrainSpec():
            yield "spec.train", "expected either spec.train or spec.command, found both; leave spec.train out"
    elif job.spec.launch != LaunchSpec():
        yield "spec.launch", "says how spec.command is started, and there is none; leave it out"
    if job.spec.runs_command:
        yield from _not_of_torchrun(job)


def _launch(job: TrainJob) -> Iterator[Finding]:
    launch = job.spec.launch
    yield from one_of("spec.launch.mode", launch.mode, TORCHRUN, SESSION)
    yield from one_of("spec.launch.hang.watch", launch.hang.watch, "none", LOG, HEARTBEAT)
    broken = tuple(duration("spec.launch.hang.after", launch.hang.after))
    yield from broken
    if not broken and parse_duration_s(launch.hang.after) < _LEAST_SILENCE_S:
        yield "spec.launch.hang.after", f"expected at least {_LEAST_SILENCE_S:g}s, found {launch.hang.after}"
    if launch.mode == SESSION and launch.hang != HangSpec():
        yield "spec.launch.hang", "is of mode torchrun; in mode session a frozen worker is found by itself"


def _words(job: TrainJob) -> Iterator[Finding]:
    command = job.spec.command
    if not command[0]:
        yield "spec.command[0]", "expected the name or path of a program, found an empty text"
    if job.spec.launch.mode == SESSION and python_program(command) is None:
        shown = shortened(" ".join(command))
        yield "spec.command", f'{PYTHON_PROGRAM} for spec.launch.mode session, found "{shown}"'


def _not_of_torchrun(job: TrainJob) -> Iterator[Finding]:
    """What only the built-in loop, or a program with a session, carries out."""
    spec = job.spec
    if spec.checkpoint != CheckpointSpec():
        yield (
            "spec.checkpoint",
            "a torchrun command saves and loads by itself, in the folder that TRAINCTL_WORKDIR names; leave it out",
        )
    results, nothing = spec.results, ResultsSpec()
    written = {
        "spec.results.jsonl": results.jsonl != nothing.jsonl,
        "spec.results.tensorboard": results.tensorboard != nothing.tensorboard,
        "spec.results.wandb": results.wandb != nothing.wandb,
        "spec.results.hooks": results.hooks != nothing.hooks,
    }
    for path, set_ in written.items():
        if set_:
            yield path, "a torchrun command has no steps that could be recorded; leave it out"
    for name in sorted(RESERVED.intersection(spec.env)):
        yield f"spec.env.{name}", "is set for each rank of a torchrun command; leave it out"
