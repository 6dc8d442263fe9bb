"""Pages of docs/reference, made from the code: ``make docs`` writes them, a test sees that they are fresh."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import sys
import typing
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from trainctl import agent, checkpoint, cli, controller, parallel
from trainctl.agent.metrics import AgentMetrics
from trainctl.controller.domain import events
from trainctl.controller.domain.spec.no_effect import WITHOUT_EFFECT
from trainctl.controller.domain.states import Machine, mermaid
from trainctl.controller.metrics.catalogue import CONTROLLER_METRICS, JOB_METRICS
from trainctl.core import errors
from trainctl.core.codec import camel
from trainctl.core.records.lines import RollbackLine, StepLine
from trainctl.core.records.spec import JobSpec, TrainJob
from trainctl.core.records.step import StepFigures
from trainctl.core.system.faults import POINTS
from trainctl.core.timeouts import PROFILES, Timeouts

FOLDER = Path(__file__).parents[2] / "docs" / "reference"
MADE = "<!-- made from the code by `make docs`; do not edit -->\n\n"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return (
        "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])
        + "\n"
    )


def attribute_docs(cls: type) -> dict[str, str]:
    """The ``Attributes:`` section of a Google-style docstring."""
    found: dict[str, str] = {}
    name = ""
    _, _, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    for line in section.splitlines():
        text = line.strip()
        if line.startswith("    ") and not line.startswith("     ") and ":" in text:
            name, _, rest = text.partition(":")
            found[name] = rest.strip()
        elif name and text:
            found[name] += f" {text}"
    return found


def spec_rows(cls: type[Any], path: str) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    hints, docs = typing.get_type_hints(cls), attribute_docs(cls)
    for field in dataclasses.fields(cls):
        name, hint = f"{path}.{camel(field.name)}", hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            rows += spec_rows(hint, name)
            continue
        default = "required" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
        if field.default_factory is not dataclasses.MISSING:
            default = "`{}`"
        name = name.removeprefix(".")
        unused = " No effect in this version." if name in WITHOUT_EFFECT else ""
        rows.append((f"`{name}`", default, in_job_file(docs[field.name], hints) + unused))
    return rows


def in_job_file(text: str, names: Iterable[str]) -> str:
    """Fields are written in camel case there."""
    for name in names:
        text = text.replace(f"``{name}``", f"``{camel(name)}``")
    return text


def spec_page() -> str:
    classes = [
        TrainJob,
        JobSpec,
        *(t for t in vars(sys.modules[JobSpec.__module__]).values() if dataclasses.is_dataclass(t)),
    ]
    summaries = {c.__name__: inspect.cleandoc(c.__doc__ or "").split("\n\n")[0].replace("\n", " ") for c in classes}  # type: ignore[union-attr]
    sections = [f"- **{name}**: {text.replace('``', '`')}" for name, text in sorted(summaries.items())]
    rows = [tuple(cell.replace("``", "`") for cell in row) for row in spec_rows(TrainJob, "")]
    text = "Strict YAML: an unknown field, a duplicate key or a wrong type is an error with its position.\n\n"
    fields = table(("field", "default", "meaning"), rows)
    return "# Job file\n\n" + MADE + text + fields + "\n## Sections\n\n" + "\n".join(sections) + "\n"


def errors_page() -> str:
    rows = [(f"`{c.code}`", str(c.exit_code), inspect.cleandoc(c.__doc__ or "").split("\n")[0]) for c in coded_errors()]
    return "# Errors\n\n" + MADE + table(("reason", "exit code", "when"), sorted(rows))


def coded_errors() -> tuple[type[errors.TrainctlError], ...]:
    """The errors with a code of their own; the one of their base is that of a bug."""
    for package in (checkpoint, parallel, controller, cli, agent):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    every = dict.fromkeys(every_subclass(errors.TrainctlError))
    return tuple(
        c for c in every if c is not errors.TrainctlError and c.__module__.startswith("trainctl.") and "code" in vars(c)
    )


def every_subclass(base: type[errors.TrainctlError]) -> Iterator[type[errors.TrainctlError]]:
    yield base
    for derived in base.__subclasses__():
        yield from every_subclass(derived)


def states_page() -> str:
    parts = [
        f"## {machine.value.replace('_', ' ').capitalize()}\n\n```mermaid\n{mermaid(machine)}```\n"
        for machine in Machine
    ]
    return "# State machines\n\n" + MADE + "\n".join(parts)


def timeouts_page() -> str:
    docs = attribute_docs(Timeouts)
    rows = [
        (f"`{f.name}`", *(f"{getattr(PROFILES[p], f.name):g}" for p in PROFILES), docs[f.name].replace("``", "`"))
        for f in dataclasses.fields(Timeouts)
    ]
    text = "All of them follow from `spec.recovery.profile`; their order is checked. Seconds.\n\n"
    return "# Time-outs\n\n" + MADE + text + table(("time-out", *PROFILES, "meaning"), rows)


def metrics_page() -> str:
    rows = [
        (f"`{m.name}`", m.kind.value, ", ".join(f"`{label}`" for label in m.labels), m.help)
        for m in (*JOB_METRICS, *CONTROLLER_METRICS)
    ]
    columns = ("metric", "type", "labels", "meaning")
    text = "# Metrics\n\n" + MADE + "## Controller\n\n" + table(columns, rows)
    return text + "\n## Agent\n\n" + table(columns, agent_metrics())


def agent_metrics() -> list[tuple[str, ...]]:
    metrics = AgentMetrics()
    metrics.starts.labels("a")
    metrics.exits.labels("a", "clean")
    metrics.process_restarts.labels("store")
    metrics.watch(
        census=lambda: [("a", "running")],
        figures_pending=lambda: 0,
        figures_dropped=lambda: 0,
        log_bytes=lambda: 0,
        log_lost_lines=lambda: 0,
    )
    rows = []
    for family in metrics.registry.collect():
        sample = family.samples[0]
        labels = ", ".join(f"`{label}`" for label in sample.labels)
        rows.append((f"`{sample.name}`", family.type, labels, family.documentation))
    return sorted(rows)


def events_page() -> str:
    docs = constant_docs(Path(events.__file__))
    types = {name: value for name, value in vars(events).items() if name.isupper() and not value.endswith(".")}
    rows = [(f"`{value}`", docs[name].replace("``", "`")) for name, value in types.items()]
    text = "Every change of phase is also an event `job.<phase>`, with fields `from`, `to` and `after`.\n\n"
    return "# Events\n\n" + MADE + text + table(("type", "what it tells"), sorted(rows))


def constant_docs(module: Path) -> dict[str, str]:
    """The text below each constant of a module, on one line."""
    body = ast.parse(module.read_text()).body
    return {
        target.id: " ".join(text.split())
        for before, after in pairwise(body)
        if isinstance(before, ast.Assign) and isinstance(target := before.targets[0], ast.Name)
        if isinstance(after, ast.Expr) and isinstance(value := after.value, ast.Constant)
        if isinstance(text := value.value, str)
    }


def records_page() -> str:
    text = (
        "Files in a job's records; how to get at them: [results.md](../howto/results.md).\n\n"
        "## steps.jsonl\n\nJSON lines. Numbers that are not finite are the texts `NaN`, `Infinity` and `-Infinity`. "
        "Further parts are `steps.1.jsonl`, `steps.2.jsonl`, and so on.\n\n"
    )
    for cls, spread in ((StepLine, StepFigures), (RollbackLine, None)):
        summary = inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")
        docs = {**(attribute_docs(spread) if spread else {}), **attribute_docs(cls)}
        names = [f.name for f in (*(dataclasses.fields(spread) if spread else ()), *dataclasses.fields(cls))]
        rows = [(f"`{camel(name)}`", docs[name]) for name in names if name != "figures"]
        text += f"{summary}\n\n{table(('field', 'meaning'), rows)}\n"
    files = (
        ("`tensorboard/`", "event files"),
        ("`wandb/`", "offline runs, for `wandb sync`"),
        ("`logs/SLOT-INCARNATION.log`", "what one life of a worker printed; then `SLOT-INCARNATION.1.log`, ..."),
        ("`delivered/HOOK.jsonl`", "lineage and step that a hook has finished with, newest last"),
        ("`job.json`", "the ended job as the API shows it (message `Job`)"),
        ("`events.jsonl`", "its newest 1000 events (message `Event`), oldest first"),
    )
    return "# Records\n\n" + MADE + text + "## Other files\n\n" + table(("file", "content"), files)


def faults_page() -> str:
    return "# Fault points\n\n" + MADE + table(("point", "where"), [(f"`{k}`", v) for k, v in POINTS.items()])


def pages() -> dict[str, str]:
    """File name to text."""
    return {
        "spec.md": spec_page(),
        "errors.md": errors_page(),
        "states.md": states_page(),
        "timeouts.md": timeouts_page(),
        "metrics.md": metrics_page(),
        "events.md": events_page(),
        "fault-points.md": faults_page(),
        "records.md": records_page(),
    }


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text)
