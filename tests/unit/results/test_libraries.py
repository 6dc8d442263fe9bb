"""TensorBoard and Weights & Biases for real: what they wrote is read back with their own readers.

Without it the curves of a job could be files that their viewers do not show.
"""

from __future__ import annotations

import importlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from trainctl.core.records.generation import Rung
from trainctl.core.records.spec import JobSpec, ResultsSpec, WandbSpec
from trainctl.parallel.results.hook import Hook, Recovery, Run, RunEnd
from trainctl.parallel.results.tensorboard import TensorBoard
from trainctl.parallel.results.wandb import WeightsAndBiases
from unit.results.samples import figures


def run(records: str, *, step: int = 0, lineage: int = 1, generation: int = 1) -> Run:
    spec = JobSpec(results=ResultsSpec(wandb=WandbSpec(project="tests")))
    return Run(
        job_uid="01a2-uid", job_name="job", spec=spec, steps=9, step=step, lineage=lineage, generation=generation,
        records=records,
    )  # fmt: skip


def train(hook: Hook, steps: range, lineage: int = 1) -> None:
    for step in steps:
        hook.on_step(figures(step, lineage, loss=float(10 * lineage + step), eval_loss=1.0 if step % 2 else None))
    hook.flush()


def scalars(folder: Path, name: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(name)]


def test_tensorboard_shows_each_surviving_step_once(tmp_path: Path) -> None:
    first = TensorBoard()
    first.on_start(run(str(tmp_path)))
    train(first, range(1, 6))  # and is killed: nothing is closed
    second = TensorBoard()
    second.on_start(run(str(tmp_path), step=4, generation=2))
    train(second, range(5, 8))
    second.on_recovery(Recovery(generation=3, lineage=2, step=3, rung=Rung.CHECKPOINT, reason="", workers=1))
    train(second, range(4, 6), lineage=2)
    second.on_end(RunEnd(step=5, reason="finished"))
    found = scalars(tmp_path / "tensorboard", "train/loss")
    assert found == [(1, 11.0), (2, 12.0), (3, 13.0), (4, 24.0), (5, 25.0)]
    assert [step for step, _ in scalars(tmp_path / "tensorboard", "eval/loss")] == [1, 3, 5]


def test_tensorboard_on_another_storage(tmp_path: Path) -> None:
    hook = TensorBoard()
    hook.on_start(run(f"local://{tmp_path}/bucket"))
    train(hook, range(1, 4))
    assert [step for step, _ in scalars(tmp_path / "bucket" / "tensorboard", "train/loss")] == [1, 2, 3]
    train(hook, range(4, 6))
    hook.on_end(RunEnd(step=5, reason="finished"))
    assert [step for step, _ in scalars(tmp_path / "bucket" / "tensorboard", "train/loss")] == [1, 2, 3, 4, 5]


def stored(file: Path) -> list[bytes]:
    """The records of a ``.wandb`` file: LevelDB's log format behind a header of 7 bytes, blocks of 32 KiB."""
    data, place, found, part = file.read_bytes(), 7, list[bytes](), b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        part += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last piece
            found.append(part)
            part = b""
    return found


def history(folder: Path) -> list[dict[str, Any]]:
    """The rows of all offline runs, and the run ids they belong to."""
    pb: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    rows = []
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        uid = ""
        for data in stored(file):
            record: Any = pb.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                uid = record.run.run_id
            if record.WhichOneof("record_type") == "history":
                items = record.history.item
                rows.append({"uid": uid, **{i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}})
    return rows


def test_weights_and_biases_offline_keeps_every_figure_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    first = WeightsAndBiases()
    first.on_start(run(str(tmp_path)))
    train(first, range(1, 4))
    first.on_recovery(Recovery(generation=2, lineage=2, step=2, rung=Rung.CHECKPOINT, reason="why", workers=1))
    train(first, range(3, 5), lineage=2)
    first.on_end(RunEnd(step=4, reason="finished"))
    rows = history(tmp_path)
    assert [(row["step"], row["lineage"], row["train/loss"]) for row in rows] == [
        (1, 1, 11.0),
        (2, 1, 12.0),
        (3, 1, 13.0),
        (3, 2, 23.0),
        (4, 2, 24.0),
    ]
    assert {row["uid"] for row in rows} == {"01a2-uid"}
    assert [row["step"] for row in rows if "eval/loss" in row] == [1, 3, 3]
