"""What the core says about a job that is a command: it holds no state of ours, so a restart is always the answer."""

from __future__ import annotations

from trainctl.controller.domain.recovery import Decision
from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import NOTHING, TrainJob
from trainctl.core.units import format_count


def start_command(ranks: int, *, again_because: str) -> Decision:
    """The decision of every generation of a command: it is started on all ranks.

    Args:
        ranks: of the generation.
        again_because: why it is started again; empty the first time.
    """
    again = f" again on all {ranks} ranks: {again_because}" if again_because else f" on {format_count(ranks, 'rank')}"
    return Decision(
        rung=Rung.RESTART if again_because else Rung.START,
        reason=f"the command is started{again}",
        target_step=0,
        lost_steps=0,
        checkpoint=None,
        candidates=(),
        missing=(),
    )


def command_sentences(job: TrainJob) -> tuple[str, ...]:
    """What would be started, and how failures of it are met: for a dry run."""
    spec = job.spec
    limits, hang = spec.recovery.max_restarts, spec.launch.hang
    folder = spec.launch.workdir or "a folder of the job's own on each node"
    silence = {
        "log": f"a command of which no rank prints anything for {hang.after} is started again",
        "heartbeat": f"a rank that does not touch its heartbeat file for {hang.after} lets all be started again",
    }
    return (
        f"each worker runs {' '.join(spec.command)} in {folder}",
        f"when a rank fails, or the number of nodes changes, the command is started again on all ranks: after at most "
        f"{limits.user} exit codes other than 0, and {limits.process} crashes within {limits.window}",
        *([silence[hang.watch]] if hang.watch != NOTHING else []),
    )
