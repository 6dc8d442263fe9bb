"""Checkpoints of a folder that is named: listed and described from its files alone. No controller, no torch."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import Any

from trainctl.checkpoint.kept.catalog import CheckpointInfo
from trainctl.checkpoint.kept.lookup import Found, choose, look, passed_over
from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.folders.manifest_facts import facts
from trainctl.cli.folders.places import absolute, see_folder
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.render import checkpoint as shown
from trainctl.cli.render import refused as render
from trainctl.core.errors import NotFoundError, UsageError
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1.job_pb2 import ListCheckpointsResponse, RefusedCheckpoint
from trainctl.protos.v1.records_pb2 import CheckpointRef


def find(context: Context) -> Found:
    """What lies in the folder that the command names.

    Raises:
        NotFoundError: there is no such folder.
        UsageError: it is none, or misspelt.
        CheckpointError: it holds something else, or its storage refused.
    """
    uri = absolute(context.options.name)
    see_folder(uri)
    return look(uri)


def take(context: Context) -> tuple[Found, CheckpointInfo]:
    """The checkpoint to read, and all that lies in the folder; says which newer ones are passed over.

    Raises:
        NotFoundError, UsageError, CheckpointError: as ``find``; or there is no such checkpoint.
    """
    found = find(context)
    info = choose(found, context.options.step)
    if context.options.step is None:
        for step, problem in passed_over(found, info):
            text = render.short_reason(problem, found.uri)
            context.console.say(f"warning: step {step} is newer, and passed over: {text}")
    return found, info


def list_folder(context: Context) -> int:
    """Lists what lies in a folder, the oldest first: whole, refused, torn, interrupted."""
    if context.options.watch:
        raise UsageError("a folder cannot be watched", hint="leave --watch out, or name the job")
    found = find(context)
    survey = found.survey
    if not (found.infos or survey.unreadable or survey.interrupted):
        if "://" in found.uri and not survey.empty:  # a store has no empty folders: nothing is there at all
            raise NotFoundError(f"there is nothing at {found.uri}", hint="check the URI")
        if is_table(context):
            context.console.say(f"{found.uri} holds no checkpoint")
            return exit_codes.OK
    answer = answer_of(found)
    emit(
        context,
        _data(found, answer),
        table=lambda: render.lines(
            render.in_order(answer),
            refused=render.refusals(answer),
            pinned=found.pinned,
            missing=(),
            now_s=time.time(),
            style=context.console.style(),
        ),
        names=[checkpoint.uri for checkpoint in answer.checkpoints],
        rows="checkpoints",
    )
    jobs = {info.manifest.job for info in found.infos}
    if len(jobs) > 1:
        context.console.say(f"they are of several jobs: {', '.join(sorted(jobs))}; describe shows of which one is")
    for step, problem in survey.unreadable:
        context.console.say(f"warning: step {step} cannot be used: {problem}")
    for step, attempt in survey.interrupted:
        context.console.say(f"step {step}, attempt {attempt}: it is being written, or was interrupted")
    return exit_codes.OK


def describe_in_folder(context: Context) -> int:
    """Shows what the manifest of a checkpoint says; what it means to its job only a controller knows."""
    found, info = take(context)
    answer = answer_of(found)
    data: dict[str, Any] = {
        **render.data_of(message_of(info), render.refusals(answer)),
        **facts(info.manifest),
        "pinned": info.ref.uri in found.pinned,
        "rollbackTarget": None,
        "loads": [],
    }
    style, name = context.console.style(), context.options.name
    emit(
        context,
        data,
        table=lambda: shown.describe(data, job=name, now_s=time.time(), style=style),
        names=[info.ref.uri],
    )
    return exit_codes.OK


def answer_of(found: Found) -> ListCheckpointsResponse:
    """The same in the words of the controller's answer, so that it is shown alike."""
    return ListCheckpointsResponse(
        checkpoints=[message_of(info) for info in found.infos if not info.problem],
        uri=found.uri,
        pinned=sorted(found.pinned),
        refused=[
            RefusedCheckpoint(ref=message_of(info), reason=info.mark or info.problem)
            for info in found.infos
            if info.problem
        ],
    )


def message_of(info: CheckpointInfo) -> CheckpointRef:
    """Of one; committed is when its manifest says that it was made."""
    return record_to_message(replace(info.ref, committed_s=_created_s(info.manifest.created)), CheckpointRef)


def _created_s(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def _data(found: Found, answer: ListCheckpointsResponse) -> dict[str, Any]:
    """What ``list -o json`` says of a job, with the job of each, and what became no checkpoint."""
    refused = render.refusals(answer)
    jobs = {info.ref.uri: info.manifest.job for info in found.infos}
    data = plain(answer)
    data["checkpoints"] = [{**render.data_of(ref, refused), "job": jobs[ref.uri]} for ref in answer.checkpoints]
    data["refused"] = [{**render.data_of(one.ref, refused), "job": jobs[one.ref.uri]} for one in answer.refused]
    data["unreadable"] = [{"step": step, "reason": problem} for step, problem in found.survey.unreadable]
    data["interrupted"] = [{"step": step, "attempt": attempt} for step, attempt in found.survey.interrupted]
    return data
