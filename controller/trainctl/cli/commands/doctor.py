"""``trainctl doctor``."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from trainctl.cli import exit_codes
from trainctl.cli.commands.submit import check_job
from trainctl.cli.context import Context
from trainctl.cli.doctor import gather_machine, gather_processes
from trainctl.cli.doctor.checks import examine
from trainctl.cli.doctor.facts import Facts
from trainctl.cli.doctor.finding import Finding, Status, healthy
from trainctl.cli.doctor.gather_controller import look
from trainctl.cli.doctor.gather_storage import Place, places_of_file, try_all
from trainctl.cli.doctor.job_env import NOTHING, JobEnv, job_env, secrets_folder
from trainctl.cli.job_file.jobfile import read_job_file
from trainctl.cli.output import emit
from trainctl.cli.terminal.style import Style
from trainctl.core.errors import UsageError
from trainctl.core.records.spec import TrainJob
from trainctl.core.timeouts import Timeouts
from trainctl.core.units import format_count
from trainctl.protos.version import WIRE_VERSION

_COLORS: Mapping[Status, str] = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
_PROFILE = "balanced"


def run(context: Context) -> int:
    """Checks everything and says what to do; exits with 1 if something fails."""
    findings = examine(gather(context))
    style = context.console.style()
    emit(
        context,
        {
            "healthy": healthy(findings),
            "checks": [{"number": n, **dataclasses.asdict(finding)} for n, finding in enumerate(findings, 1)],
        },
        table=lambda: [line for n, finding in enumerate(findings, 1) for line in _lines(n, finding, style)],
        names=[finding.check for finding in findings if finding.status is not Status.OK],
    )
    failed = sum(finding.status is Status.FAIL for finding in findings)
    doubtful = sum(finding.status is Status.WARN for finding in findings)
    context.console.say(f"{format_count(len(findings), 'check')}: {failed} failed, {doubtful} with a warning")
    return exit_codes.OK if healthy(findings) else exit_codes.FAILURE


def gather(context: Context) -> Facts:
    """All facts; takes some seconds, most of them for torch.

    Raises:
        UsageError: a storage is to be tried, but not said which; or it is not said whose secrets are meant.
        SpecError: the job file is invalid; names every problem with its position.
    """
    if "" in context.options.storage:
        raise UsageError("--storage: expected a folder or a URI, found nothing", hint="for example s3://bucket/runs")
    _check_secrets(context)
    job_file = _job_of_file(context)
    context.console.say("looking at this machine, torch, the controller and storage (a few seconds)")
    controller, job, places = look(context, context.options.job)
    env = _env_of(context, job_file)
    if context.options.storage:
        places = tuple(Place(field="--storage", uri=uri, job=env) for uri in context.options.storage)
    elif job_file is not None:
        places = places_of_file(job_file, env) or places
    profile = (job.profile if job is not None else "") or _PROFILE
    timeouts = dataclasses.asdict(Timeouts.for_profile(profile))
    if job is not None and job.replacement_wait_s:
        timeouts["replacement_wait_s"] = job.replacement_wait_s
    return Facts(
        machine=gather_machine.machine(context.run_dir.parent),
        software=gather_machine.software(),
        torch=gather_processes.torch(context.env),
        driver=gather_machine.driver(context.env),
        controller=controller,
        local=bool(controller.local_pid),
        wire_version=WIRE_VERSION,
        job=job,
        storages=try_all(places, context.env),
        timeouts=timeouts,
        profile=profile,
    )


def _check_secrets(context: Context) -> None:
    """Raises: UsageError: secrets are given that nothing names, or the folder is an empty text."""
    options = context.options
    if options.secrets is None:
        return
    if not options.secrets:
        raise UsageError("--secrets: expected a folder, found nothing", hint="is the variable in it set?")
    if options.file is None and options.job is None:
        raise UsageError(
            "--secrets: expected also a job that names them", hint="--file job.yaml, or --job NAME of one that is there"
        )


def _job_of_file(context: Context) -> TrainJob | None:
    if context.options.file is None:
        return None
    text, source = read_job_file(context.options.file)
    return check_job(text, source=source, overrides=(), name=None)


def _env_of(context: Context, job: TrainJob | None) -> JobEnv:
    """Nobody's, or as the workers of the job in the file would have it."""
    if job is None:
        return NOTHING
    return job_env(job.spec.env, job.spec.secret_env, secrets_folder(context), own=context.env)


def _lines(number: int, finding: Finding, style: Style) -> list[str]:
    word = style.paint(f"{finding.status:<4}", _COLORS[finding.status])
    first, *rest = finding.message.split("\n")
    lines = [f"{number:>2}  {word}  {finding.check}: {first}", *(f"          {line}" for line in rest)]
    return [*lines, f"          {style.paint('do:', 'cyan')} {finding.remedy}"] if finding.remedy else lines
