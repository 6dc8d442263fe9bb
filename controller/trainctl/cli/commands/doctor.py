"""``trainctl doctor``."""

from __future__ import annotations

import dataclasses

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.doctor import gather_machine, gather_processes
from trainctl.cli.doctor.checks import examine
from trainctl.cli.doctor.facts import Facts
from trainctl.cli.doctor.finding import Finding, Status, healthy
from trainctl.cli.doctor.gather_controller import look
from trainctl.cli.doctor.gather_storage import Place, try_all
from trainctl.cli.output import emit
from trainctl.cli.style import Style
from trainctl.core.errors import UsageError
from trainctl.core.timeouts import Timeouts
from trainctl.core.units import format_count
from trainctl.protos.version import WIRE_VERSION

_COLORS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
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
        UsageError: a storage is to be tried, but not said which.
    """
    if "" in context.options.storage:
        raise UsageError("--storage: expected a folder or a URI, found nothing", hint="for example s3://bucket/runs")
    context.console.say("looking at this machine, torch, the controller and storage (a few seconds)")
    controller, job, places = look(context, context.options.job)
    if context.options.storage:
        places = tuple(Place(field="--storage", uri=uri) for uri in context.options.storage)
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


def _lines(number: int, finding: Finding, style: Style) -> list[str]:
    word = style.paint(f"{finding.status:<4}", _COLORS[finding.status])
    first, *rest = finding.message.split("\n")
    lines = [f"{number:>2}  {word}  {finding.check}: {first}", *(f"          {line}" for line in rest)]
    return [*lines, f"          {style.paint('do:', 'cyan')} {finding.remedy}"] if finding.remedy else lines
