"""``trainctl submit``."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.commands.watch import watch
from trainctl.cli.config.settings import resolve
from trainctl.cli.connection.client import connect
from trainctl.cli.context import Context
from trainctl.cli.job_file.job_tenant import tenant_of_job
from trainctl.cli.job_file.jobfile import read_job_file
from trainctl.cli.job_file.jobfile_positions import with_positions
from trainctl.cli.job_file.paths import with_absolute_paths
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.phases import parse_phase
from trainctl.controller.domain.spec import parse_job
from trainctl.controller.domain.spec.defaults import effective
from trainctl.controller.domain.spec.no_effect import no_effect
from trainctl.core.errors import SpecError
from trainctl.core.records.spec import TrainJob
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1.job_pb2 import CreateJobRequest, CreateJobResponse
from trainctl.protos.v1.records_pb2 import TrainJob as TrainJobMessage


def run(context: Context) -> int:
    """Checks a job file, sends it, and looks on if asked to."""
    options = context.options
    until = parse_phase("--wait", options.wait) if options.wait else ""
    text, source = read_job_file(options.file)
    job = check_job(text, source=source, overrides=options.set, name=options.name)
    if options.dry_run == "client":
        return _show_checked(context, job)
    context.request_id = options.request_id or str(uuid.uuid4())
    context.on_interrupt = (
        "interrupted: the job may have been submitted; to be sure, submit it again with",
        f"  --request-id {context.request_id}",
    )
    request = CreateJobRequest(
        job=record_to_message(job, TrainJobMessage),
        request_id=context.request_id,
        validate_only=options.dry_run is not None,
    )
    tenant = tenant_of_job(text, options.set, resolve(context)["tenant"], source=source)
    if tenant:
        request.job.metadata.tenant = tenant
    else:
        request.job.metadata.ClearField("tenant")
    with connect(context) as client:
        try:
            answer = client.call(client.stub.CreateJob, request)
        except SpecError as error:
            raise with_positions(error, text=text, source=source, overrides=options.set) from error
    if options.dry_run is not None:
        return _show_plan(context, answer)
    context.request_id, context.tenant = "", answer.job.spec.metadata.tenant
    name = answer.job.spec.metadata.name or job.metadata.name
    if options.watch or options.wait is not None:
        context.console.say(f"job {name} submitted ({answer.job.uid})")
        return watch(context, answer.job.uid, label=name, only_phases=not options.watch, until=until)
    emit(context, plain(answer.job), table=lambda: [f"job {name} submitted ({answer.job.uid})"], names=[name])
    if is_table(context):
        context.console.say(f"look on with: trainctl watch {name}")
    return exit_codes.OK


def check_job(text: str, *, source: str, overrides: Sequence[str], name: str | None) -> TrainJob:
    """The job in a file's text, with what the command line overrides, and with absolute paths.

    Raises:
        SpecError: it is invalid; names every problem with its position.
    """
    # Quoted as JSON, which is YAML: a name such as 123 is text, too.
    named = [f"metadata.name={json.dumps(name)}"] if name is not None else []
    job = parse_job(text, source=source, overrides=[*overrides, *named])
    return with_absolute_paths(job, here=Path.cwd())


def _show_plan(context: Context, answer: CreateJobResponse) -> int:
    name = answer.job.spec.metadata.name
    lines = [*answer.plan] or ["the job is valid"]
    emit(context, {"plan": list(answer.plan), "job": plain(answer.job)}, table=lambda: lines, names=[name])
    if is_table(context):
        context.console.say("dry run: nothing was started")
    return exit_codes.OK


def _show_checked(context: Context, job: TrainJob) -> int:
    """What can be said without a controller: the file is valid, and this is the job with its defaults."""
    name = job.metadata.name
    message = plain(record_to_message(effective(job), TrainJobMessage))
    emit(
        context,
        message,
        table=lambda: [f"job {name} is valid, as far as the file tells", *no_effect(job)],
        names=[name],
    )
    if is_table(context):
        context.console.say("dry run: no controller was asked, nothing was started")
    return exit_codes.OK
