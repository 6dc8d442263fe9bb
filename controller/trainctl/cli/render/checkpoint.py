"""One checkpoint, as its manifest and the controller describe it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from trainctl.checkpoint.monitor import PartTimes
from trainctl.cli.render import save_times
from trainctl.cli.render.refused import REFUSED
from trainctl.cli.terminal.style import Style, table
from trainctl.cli.terminal.times import age
from trainctl.core.units import format_bytes, format_count

_LAYOUTS: Mapping[str, str] = {"hf": "hf: transformers loads the model from this folder as it is"}
_FRACTION = re.compile(r"\.\d+")


def describe(data: Mapping[str, Any], *, job: str, now_s: float, style: Style) -> list[str]:
    """The facts that ``checkpoints describe -o json`` shows, for people.

    Args:
        data: of the checkpoint; ``rollbackTarget`` is null where no controller was asked.
        job: name of the job; or the folder that was named instead.
        now_s: Unix seconds.
        style: paints.
    """
    counts = [
        f"{format_bytes(data['sizeBytes'])} in {format_count(len(data['files']), 'file')}",
        format_count(data["tensors"], "tensor"),
        format_count(data["writers"], "writer"),
    ]
    pairs = [
        ("Job", style.paint(job if _asked(data) else data["job"], "bold")),
        ("Step", f"{data['step']} in lineage {data['lineage']}"),
        ("Parent", _parent(data)),
        ("Committed", _when(data["committed"], now_s)),
        *_refusal(data, job=job, now_s=now_s, style=style),
        ("Saved", f"{_FRACTION.sub('', data['created'])} under controller epoch {data['epoch']}"),
        ("Size", ", ".join(counts)),
        ("Layout", _LAYOUTS.get(data["layout"], data["layout"])),
        ("Where", data["uri"]),
        ("Manifest", f"sha256 {data['manifestSha256']}"),
        ("Pinned", "yes" if data["pinned"] else "no"),
        *([("Roll-back", _rollback(data, job))] if _asked(data) else []),
    ]
    width = max(len(name) for name, _ in pairs)
    rows = [(file["path"], format_bytes(file["sizeBytes"])) for file in data["files"]]
    files = table(("PATH", "SIZE"), rows, right="SIZE")
    parts = [PartTimes(part["rank"], part["dataBytes"], part["seconds"]) for part in data["parts"]]
    return [
        *(f"{name:<{width}}  {value}" for name, value in pairs),
        *save_times.lines(parts, style=style, uri=data["uri"]),
        *(line for load in data["loads"] for line in _load(load, style=style)),
        "",
        style.paint("Files:", "bold"),
        *(f"  {line}" for line in files),
    ]


def _asked(data: Mapping[str, Any]) -> bool:
    return data["rollbackTarget"] is not None


def _rollback(data: Mapping[str, Any], job: str) -> str:
    return f"`trainctl rollback {job}` takes this one" if data["rollbackTarget"] else "takes another, or none"


def _load(load: Mapping[str, Any], *, style: Style) -> list[str]:
    parts = [
        PartTimes(part["rank"], part["dataBytes"], part["seconds"], part["movedBytes"], part["healedReads"])
        for part in load["parts"]
    ]
    return save_times.load_lines(
        parts,
        generation=load["generation"],
        ranks=load["ranks"],
        longest=load["bottleneck"],
        seconds=load["seconds"],
        healed_reads=load["healedReads"],
        style=style,
    )


def _parent(data: Mapping[str, Any]) -> str:
    parent = data["parent"]
    if parent is None:
        return "none: it is the first of its chain"
    of = f" of job {parent['job']}" if parent["job"] not in ("", data["job"]) else ""
    return f"step {parent['step']}{of}, attempt {parent['attempt']}"


def _refusal(data: Mapping[str, Any], *, job: str, now_s: float, style: Style) -> list[tuple[str, str]]:
    """All that was found wrong, line by line, and what to do about it."""
    if data["state"] != REFUSED:
        return []
    first, *rest = data["reason"].splitlines() or ["damaged"]
    again = f"trainctl checkpoints verify {job} --step {data['step']}" + (" --accept" if _asked(data) else "")
    since = "since " + _when(data["refusedSince"], now_s) if data["refusedSince"] else "damaged"
    return [
        ("Refused", f"{style.paint(since, 'red')}: {first}"),
        *(("", line) for line in rest),
        ("", f"when its files are restored from a copy: {again}"),
    ]


def _when(text: str | None, now_s: float) -> str:
    return f"{text} ({age(datetime.fromisoformat(text).timestamp(), now_s)} ago)" if text else "-"
