"""A checkpoint is read byte by byte for a command, and what was found is said, wherever it was named."""

from __future__ import annotations

from typing import Any, NoReturn

from trainctl.checkpoint.kept.verification import Verified
from trainctl.checkpoint.kept.verification import verify as read_all
from trainctl.cli.context import Context
from trainctl.cli.folders.marks import Noted
from trainctl.cli.output import emit, is_table
from trainctl.cli.terminal.progress import Progress
from trainctl.core.errors import CheckpointError
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.units import format_bytes, format_count


def read(context: Context, ref: CheckpointRef) -> Verified:
    """Reads every byte, and says how far it is.

    Raises:
        CheckpointError: its root manifest is not there, unusable, or another one.
    """
    context.on_interrupt = ("interrupted: nothing was changed",)
    context.console.say(f"reading {ref.uri}")
    with Progress(context.console, "verified") as progress:
        return read_all(ref, progress=progress.at)


def data_of(ref: CheckpointRef, found: Verified, refused: str) -> dict[str, Any]:
    """What was found, for machines; ``refused`` is why it was refused before, or empty."""
    return {
        "step": ref.step,
        "uri": ref.uri,
        "files": found.files,
        "sizeBytes": found.size_bytes,
        "damage": list(found.damage),
        "healedReads": found.healed_reads,
        "refused": refused,
    }


def whole(ref: CheckpointRef, found: Verified) -> str:
    """That it is, in a sentence."""
    size = f"{format_count(found.files, 'file')}, {format_bytes(found.size_bytes)}"
    healed = f"; {format_count(found.healed_reads, 'read')} only right when repeated: see what changes bytes on the way"
    return f"the checkpoint of step {ref.step} is whole: {size}{healed if found.healed_reads else ''}"


def fail(context: Context, ref: CheckpointRef, found: Verified, noted: Noted, *, refused: str, hint: str) -> NoReturn:
    """Says all that is wrong.

    Raises:
        CheckpointError: always; for machines the data is written first.
    """
    if not is_table(context):
        data = {**data_of(ref, found, refused), "marked": noted.done, "notMarked": "" if noted.done else noted.line}
        emit(context, data, table=lambda: [], names=[ref.uri])
    stays = "; it stays refused" if refused else ""
    wrong = (f"  {line}" for line in found.damage)
    raise CheckpointError(
        "\n".join([f"the checkpoint of step {ref.step} is damaged{stays}:", *wrong, *noted.lines]), hint=hint
    )
