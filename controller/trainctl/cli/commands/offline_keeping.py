"""``trainctl checkpoints rm|pin|unpin`` in a folder: done to the files, which no controller hears of."""

from __future__ import annotations

from trainctl.checkpoint.kept.catalog import CheckpointInfo
from trainctl.checkpoint.kept.lookup import Found, only
from trainctl.checkpoint.kept.pins import pin, unpin
from trainctl.checkpoint.kept.retention import discard
from trainctl.cli import exit_codes
from trainctl.cli.commands.cancel import confirm
from trainctl.cli.commands.offline import find
from trainctl.cli.context import Context
from trainctl.cli.output import emit
from trainctl.cli.render.refused import short_reason
from trainctl.core.errors import CheckpointError, PreconditionError, UsageError


def rm_in_folder(context: Context) -> int:
    """Removes one checkpoint with its files, unless it is pinned."""
    found, info = _one(context)
    ref = info.ref
    if ref.uri in found.pinned:
        hint = f"trainctl checkpoints unpin {ref.uri}"
        raise PreconditionError(f"the checkpoint of step {ref.step} is pinned: {ref.uri}", hint=hint)
    context.on_interrupt = (f"interrupted: what is left in {ref.uri} is no checkpoint without its manifest.json",)
    if not context.options.yes and not confirm(_question(found, info)):
        context.console.say("nothing was removed")
        return exit_codes.FAILURE
    discard(ref)
    data = {"job": info.manifest.job, "step": ref.step, "uri": ref.uri, "removed": True}
    emit(context, data, table=lambda: [f"the checkpoint of step {ref.step} is removed: {ref.uri}"], names=[ref.uri])
    return exit_codes.OK


def _question(found: Found, info: CheckpointInfo) -> str:
    others = [other for other in found.survey.checkpoints if other != info]
    last = "" if others or info.problem or found.single else "; it is the only whole one here"
    nobody = "no controller is asked whether a job needs it"
    return f"remove the checkpoint of step {info.ref.step} ({info.ref.uri})? {nobody}{last}"


def pin_in_folder(context: Context, *, pinned: bool, words: str) -> int:
    """Puts the mark of a pin beside a checkpoint, or takes it away."""
    _, info = _one(context)
    ref = info.ref
    if pinned and info.problem:
        raise CheckpointError(
            f"the checkpoint of step {ref.step} is damaged, so that it is not worth keeping: "
            + short_reason(info.mark or info.problem, ref.uri),
            hint=f"when its files are restored from a copy: trainctl checkpoints verify {ref.uri}",
        )
    context.on_interrupt = (f"interrupted; whether it was done shows: trainctl checkpoints list {ref.uri}",)
    (pin if pinned else unpin)(ref)
    data = {"job": info.manifest.job, "step": ref.step, "uri": ref.uri, "pinned": pinned}
    emit(context, data, table=lambda: [f"the checkpoint of step {ref.step} {words}: {ref.uri}"], names=[ref.uri])
    return exit_codes.OK


def _one(context: Context) -> tuple[Found, CheckpointInfo]:
    """Raises: UsageError: the folder is that of many, and no step is said."""
    found = find(context)
    if context.options.step is None and not found.single:
        raise UsageError(
            "--step: expected which checkpoint, found nothing",
            hint=f"`trainctl checkpoints list {context.options.name}` shows those that there are",
        )
    return found, only(found, context.options.step)
