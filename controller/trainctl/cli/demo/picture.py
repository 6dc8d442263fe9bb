"""The loss curve with the failures marked, as a PNG."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from trainctl.core.errors import PreconditionError
from trainctl.protos.v1.job_pb2 import Recovery
from trainctl.protos.v1.records_pb2 import StepFigures

LABEL_WIDTH = 30


def draw_loss(figures: Sequence[StepFigures], recoveries: Sequence[Recovery], path: Path) -> None:
    """Draws training and held-out loss over the steps, a line for each failure and what was done about it.

    Raises:
        PreconditionError: matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        hint = "install the extra: pip install 'trainctl-orchestrator[demo]'"
        raise PreconditionError("the picture needs matplotlib, which is not installed", hint=hint) from error
    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    axes.plot(
        [f.step for f in figures], [f.loss for f in figures], color="#2563eb", linewidth=1.4, label="training loss"
    )
    held_out = [f for f in figures if f.HasField("eval_loss")]
    axes.plot([f.step for f in held_out], [f.eval_loss for f in held_out], "o-", color="#d97706", label="held-out loss")
    top = max(f.loss for f in figures)
    for index, recovery in enumerate(recoveries):
        axes.axvline(recovery.target_step, color="#dc2626", linestyle="--", linewidth=1)
        what = textwrap.fill(recovery.fault, LABEL_WIDTH)
        text = f"{what}\n{recovery.rung}: {recovery.phases_s['total']:.1f} s, {recovery.lost_steps} steps lost"
        # Every second label hangs lower, so that two failures close together can both be read.
        offset = (4, -4 - 44 * (index % 2))
        axes.annotate(
            text, (recovery.target_step, top), xytext=offset, textcoords="offset points", va="top", fontsize=8
        )
    axes.set(xlabel="step", ylabel="loss (nats per token)", title="one run, its failures, nothing lost")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    figure.savefig(path)
