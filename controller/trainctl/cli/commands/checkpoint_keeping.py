"""``trainctl checkpoints rm|pin|unpin``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.commands.cancel import confirm
from trainctl.cli.commands.checkpoints import ask, choose
from trainctl.cli.commands.delete import LOOK_EVERY_S, check_refusal
from trainctl.cli.commands.operate import begin, int32
from trainctl.cli.connection.client import Client, connect, get_job
from trainctl.cli.context import Context
from trainctl.cli.folders.places import is_path, or_folder
from trainctl.cli.output import emit
from trainctl.core.errors import UsageError
from trainctl.protos.v1.job_pb2 import DeleteCheckpointRequest, PinCheckpointRequest


def rm(context: Context) -> int:
    """Removes one checkpoint; returns when its files are gone, or says why they are not."""
    options = context.options
    if is_path(options.name):
        from trainctl.cli.commands.offline_keeping import rm_in_folder

        return rm_in_folder(context)
    step = _step(context)
    if not options.yes and not confirm(_question(context)):
        context.console.say("nothing was removed")
        return exit_codes.FAILURE
    request_id = begin(context, "it is being removed")
    request = DeleteCheckpointRequest(name=options.name, request_id=request_id, step=step)
    with _connected(context) as client:
        job = client.call(client.stub.DeleteCheckpoint, request).job
        context.on_interrupt = (f"interrupted: the checkpoint of step {step} is being removed all the same",)
        _wait_until_gone(client, job.uid, step)
    name = job.spec.metadata.name
    data = {"job": name, "step": step, "removed": True}
    emit(context, data, table=lambda: [f"the checkpoint of step {step} of job {name} is removed"], names=[str(step)])
    return exit_codes.OK


def _question(context: Context) -> str:
    """Nobody is asked about a checkpoint that does not exist."""
    context.on_interrupt = ("interrupted: nothing was changed",)
    with _connected(context) as client:
        job = get_job(client, context.options.name)
        chosen = choose(job, ask(client, job.uid).checkpoints, context.options.step)
    return f"remove the checkpoint of step {chosen.step} of job {job.spec.metadata.name} ({chosen.uri})?"


def _wait_until_gone(client: Client, uid: str, step: int) -> None:
    """Raises: NotDeletedError: something refused to go."""
    while any(ref.step == step for ref in ask(client, uid).removing):
        check_refusal(get_job(client, uid))
        time.sleep(LOOK_EVERY_S)


def pin(context: Context) -> int:
    """Keeps a checkpoint."""
    return _pin(context, pinned=True, words="is pinned: it stays until it is unpinned")


def unpin(context: Context) -> int:
    """Lets retention have a checkpoint again."""
    return _pin(context, pinned=False, words="is not pinned (any more)")


def _pin(context: Context, *, pinned: bool, words: str) -> int:
    if is_path(context.options.name):
        from trainctl.cli.commands.offline_keeping import pin_in_folder

        return pin_in_folder(context, pinned=pinned, words=words)
    step = _step(context)
    request_id = begin(context, "it was done")
    request = PinCheckpointRequest(name=context.options.name, request_id=request_id, step=step, pinned=pinned)
    with _connected(context) as client:
        name = client.call(client.stub.PinCheckpoint, request).job.spec.metadata.name
    data = {"job": name, "step": step, "pinned": pinned}
    emit(context, data, table=lambda: [f"the checkpoint of step {step} of job {name} {words}"], names=[str(step)])
    return exit_codes.OK


def _step(context: Context) -> int:
    """Raises: UsageError: it is not said, or fits no request."""
    if context.options.step is None:
        hint = f"`trainctl checkpoints list {context.options.name}` shows those that there are"
        raise UsageError("--step: expected which checkpoint of the job, found nothing", hint=hint)
    return int32("--step", context.options.step)


@contextlib.contextmanager
def _connected(context: Context) -> Generator[Client, None, None]:
    """A client; where a folder has the name of the job, an error about the job says so, one about the step does not."""
    name = context.options.name
    with contextlib.ExitStack() as stack:
        with or_folder(name):
            client = stack.enter_context(connect(context))
            if Path(name).is_dir():
                get_job(client, name)
        yield client
