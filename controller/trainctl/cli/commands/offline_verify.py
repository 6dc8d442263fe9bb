"""``trainctl checkpoints verify`` of a folder: what is damaged is marked, what is whole again no longer."""

from __future__ import annotations

from trainctl.checkpoint.kept.read_back import shortest
from trainctl.cli import exit_codes
from trainctl.cli.commands.offline import take
from trainctl.cli.context import Context
from trainctl.cli.folders import marks
from trainctl.cli.folders.verified import data_of, fail, read, whole
from trainctl.cli.output import emit


def verify_in_folder(context: Context) -> int:
    """Reads every file of a checkpoint; fails if one is not as it was saved, and names it."""
    _, info = take(context)
    ref = info.ref
    found = read(context, ref)
    if found.damage:
        fail(
            context,
            ref,
            found,
            marks.put(ref, shortest(found.damage)) if found.certain else marks.UNCERTAIN,
            refused=info.mark,
            hint="restore the files from a copy and verify it again, or take another: trainctl checkpoints list "
            + context.options.name,
        )
    taken = marks.take(ref, info.mark)
    emit(
        context,
        {**data_of(ref, found, info.mark), "unmarked": taken.done},
        table=lambda: [whole(ref, found), *taken.lines],
        names=[ref.uri],
    )
    return exit_codes.OK
