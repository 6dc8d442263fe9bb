"""What is drawn, without saying how: curves over steps, in panels of one unit each, with marks for recoveries."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from trainctl.cli.render.recoveries import total_s
from trainctl.core.errors import PreconditionError, UsageError
from trainctl.core.texts import quoted
from trainctl.core.units import format_count
from trainctl.protos.v1.job_pb2 import Recovery
from trainctl.protos.v1.records_pb2 import StepFigures

Point = tuple[int, float]
"""Step and value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number of a step.

    Attributes:
        label: its name in a legend.
        unit: of its axis; metrics of one unit share a panel.
        value: of a step; None where the step has none.
        dotted: single points stand for themselves, such as evaluations.
    """

    label: str
    unit: str
    value: Callable[[StepFigures], float | None]
    dotted: bool = False


def _tokens_per_s(figures: StepFigures) -> float | None:
    return figures.tokens / figures.step_s if figures.step_s > 0 else None


METRICS: Mapping[str, Metric] = {
    "loss": Metric(label="training loss", unit="loss (nats per token)", value=lambda f: f.loss),
    "eval_loss": Metric(
        label="eval loss",
        unit="loss (nats per token)",
        value=lambda f: f.eval_loss if f.HasField("eval_loss") else None,
        dotted=True,
    ),
    "tokens_per_s": Metric(label="tokens per second", unit="tokens per second", value=_tokens_per_s),
    "learning_rate": Metric(label="learning rate", unit="learning rate", value=lambda f: f.learning_rate),
    "gradient_norm": Metric(label="gradient norm", unit="gradient norm", value=lambda f: f.gradient_norm),
    "step_s": Metric(label="step", unit="seconds", value=lambda f: f.step_s),
    "reduce_s": Metric(label="gradient reduction", unit="seconds", value=lambda f: f.reduce_s),
    "vote_s": Metric(label="vote", unit="seconds", value=lambda f: f.vote_s),
}
DEFAULT = "loss,eval_loss,tokens_per_s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The finite values of one metric, by step."""

    metric: Metric
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Curves that share an axis."""

    unit: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A recovery.

    Attributes:
        step: the run went on after this step.
        fault: what had happened.
        answer: what was done, and what it cost.
    """

    step: int
    fault: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """All that is drawn of a job; at least one panel has a point."""

    title: str
    panels: tuple[Panel, ...]
    marks: tuple[Mark, ...]

    @property
    def steps(self) -> tuple[int, int]:
        """First and last step of all curves."""
        steps = [step for panel in self.panels for curve in panel.curves for step, _ in curve.points]
        return min(steps), max(steps)


def metrics_of(text: str) -> tuple[Metric, ...]:
    """The metrics named in ``loss,tokens_per_s``.

    Raises:
        UsageError: there is no such metric.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in METRICS:
            near = difflib.get_close_matches(name, METRICS, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(METRICS)}"
            raise UsageError(f"--metric: there is no {quoted(name)}", hint=hint)
    if not names:
        raise UsageError("--metric: expected names, found nothing", hint=f"known: {', '.join(METRICS)}")
    return tuple(METRICS[name] for name in names)


def plot_of(
    title: str,
    figures: Sequence[StepFigures],
    recoveries: Sequence[Recovery],
    metrics: Sequence[Metric],
    *,
    hint: str = "",
) -> Plot:
    """Sorts everything into panels.

    Raises:
        PreconditionError: there is nothing to draw yet; ``hint`` says what to do then.
    """
    curves = [_curve(metric, figures) for metric in metrics]
    units = dict.fromkeys(metric.unit for metric in metrics)
    panels = [Panel(unit=u, curves=tuple(c for c in curves if c.metric.unit == u and c.points)) for u in units]
    drawn = tuple(panel for panel in panels if panel.curves)
    if not drawn:
        there = format_count(len(figures), "step")
        found = f"none of its {there} has such a figure" if figures else "no step is committed yet"
        raise PreconditionError(f"{title}: there is nothing to draw: {found}", hint=hint)
    return Plot(title=title, panels=drawn, marks=tuple(_mark(recovery) for recovery in recoveries))


def _curve(metric: Metric, figures: Sequence[StepFigures]) -> Curve:
    values = ((one.step, metric.value(one)) for one in figures)
    return Curve(metric=metric, points=tuple((step, v) for step, v in values if v is not None and math.isfinite(v)))


def _mark(recovery: Recovery) -> Mark:
    lost = f", {format_count(recovery.lost_steps, 'step')} lost" if recovery.lost_steps else ", nothing lost"
    answer = f"{recovery.rung}: {total_s(recovery):.1f} s{lost}" if recovery.rung else "in progress"
    return Mark(step=recovery.target_step, fault=recovery.fault, answer=answer)
