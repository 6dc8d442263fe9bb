"""Whatever a worker sends or writes onto its page: its agent goes on, and can tell the controller what it took in.

Without it one worker that sends nonsense takes its agent along, and every other worker of the node.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainctl.agent.bridge_end import BridgeEnd
from trainctl.agent.forkserver.client import Child
from trainctl.agent.heard import MAX_OBSERVED_BYTES, fitting
from trainctl.agent.worker import Worker, WorkerEvents, _make_page
from trainctl.core.codec import WireError, to_wire
from trainctl.core.records.snapshot import SnapshotHeld, SnapshotRef, SnapshotsMade
from trainctl.core.records.step import Phase, StepReport
from trainctl.core.records.worker import (
    CheckpointReport,
    Instruction,
    RecoveryReport,
    WorkerDesired,
    WorkerError,
    WorkerObserved,
    WorkerPhase,
)
from trainctl.parallel import bridge, progress_page
from trainctl.parallel.progress_page import GARBLED, PAGE_BYTES, ProgressWriter, read_progress
from trainctl.parallel.worker import describe
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1 import records_pb2
from unit.agent.messages import desired, figures
from unit.changed_json import changed
from unit.domain.fuzz_effort import Effort

effort = Effort.of(os.environ)
JOB = "u"
SNAPSHOT = SnapshotHeld(snapshot=SnapshotRef(lineage=0, step=1, attempt="a"), parts=2, held=(0,))
EXAMPLES: tuple[bridge.Message, ...] = (
    bridge.Ready(7),
    bridge.Running(4),
    bridge.Reported(StepReport(prepared_generation=2, lineage=0, applied_step=-1)),
    bridge.Figures((figures(1), figures(2))),
    bridge.Checkpointed(CheckpointReport(job_uid=JOB, island="i", generation=1, step=2, lineage=0, error="full")),
    bridge.Recovered(RecoveryReport(job_uid=JOB, island="i", generation=1, global_rank=0, slot=0)),
    bridge.Noticed("a hook"),
    bridge.Snapshotted(SnapshotsMade(generation=1, newest=SNAPSHOT)),
    bridge.Failed(WorkerError(type="ValueError", message="no")),
    bridge.Finished(9),
    bridge.Instruct(desired()),
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from((2**31, 2**63, 2**64, -1, 10**400))
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(("\udcff", "x" * 200_000, "NaN", "u", "\0")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def wanted() -> WorkerDesired:
    return replace(desired(Instruction.RUN), job_uid=JOB)


class Agent:
    """What an agent has of one worker, without a process; ``told`` is what its link would send."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        events = WorkerEvents(
            changed=self._tell,
            figures=lambda job, items: self.told.extend(
                record_to_message(item, records_pb2.StepFigures) for item in items
            ),
            report=self._report,
        )
        self.worker = Worker(wanted(), entry="x:y", node_dir="", local_rank=0, secrets=None, events=events)
        self.worker.forked(MagicMock(spec=Child, pid=4711))
        self.told.clear()
        self.end = BridgeEnd(self.worker._hear)

    def _report(self, report: CheckpointReport | RecoveryReport) -> None:
        assert report.job_uid == JOB
        wire = records_pb2.CheckpointReport if isinstance(report, CheckpointReport) else records_pb2.RecoveryReport
        self.told.append(record_to_message(report, wire))

    def _tell(self) -> None:
        message = record_to_message(self.worker.observe(1.0), records_pb2.WorkerObserved)
        assert message.ByteSize() < 16 * MAX_OBSERVED_BYTES
        self.told.append(message)


@effort
@given(st.sampled_from(EXAMPLES), st.lists(st.integers(0, 50), max_size=4).map(tuple), VALUES)
def test_any_value_in_any_message(message: bridge.Message, path: tuple[int, ...], new: Any) -> None:
    line = json.dumps({"type": type(message).__name__, "body": changed(to_wire(message), path, new)}).encode()
    agent = Agent()
    agent.end.data_received(line + b"\n")
    agent._tell()


@effort
@given(st.lists(st.binary(max_size=40) | VALUES.map(lambda value: json.dumps(value).encode()), max_size=3))
def test_any_bytes(lines: list[bytes]) -> None:
    agent = Agent()
    agent.end.data_received(b"\n".join(lines) + b"\n")
    agent._tell()


def test_a_line_of_endless_brackets_is_an_error_and_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    for line in (b"[" * 100_000, b'{"type":"Ready","body":{"steps":' + b"[" * 900 + b"]" * 900 + b"}}"):
        agent = Agent()
        agent.end.data_received(line + b"\n")
        assert not agent.told
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert not any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("message", EXAMPLES[:-1], ids=lambda message: type(message).__name__)
def test_what_workers_say_is_taken_in_as_it_is(message: bridge.Message) -> None:
    assert fitting(message, JOB) == message


@pytest.mark.parametrize("message", [EXAMPLES[4], EXAMPLES[5]], ids=("checkpoint", "recovery"))
def test_a_worker_does_not_speak_for_another_job(message: bridge.Message) -> None:
    with pytest.raises(WireError, match="expected a report about job 'other', found one about 'u'"):
        fitting(message, "other")


def test_an_error_with_an_endless_text_is_told_in_part() -> None:
    agent = Agent()
    lines = ("first " + "x" * 10**6, "y")
    error = WorkerError(type="E", message="why: " + "m" * 10**6, traceback="t" * 10**6 + " the end", log_tail=lines)
    agent.end.data_received(bridge.encode(bridge.Failed(error)))
    found = agent.worker.observe(0.0).error
    assert found is not None
    assert found.message.startswith("why: ")
    assert found.traceback.endswith(" the end")
    assert [len(line) for line in found.log_tail] == [1000, 1]


def test_the_name_of_a_file_that_is_no_unicode_is_told() -> None:
    error = describe(OSError("no file \udcff"), step=3)
    agent = Agent()
    agent.end.data_received(bridge.encode(bridge.Failed(error)))
    agent.end.data_received(bridge.encode(bridge.Noticed("left out: \udcff")))
    observed = agent.worker.observe(0.0)
    assert observed.error is not None
    assert (observed.error.message, observed.notices) == ("no file ?", ("left out: ?",))


@effort
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(-(2**63), 2**63 - 1)), max_size=8))
def test_any_words_on_the_page(words: list[tuple[int, int]]) -> None:
    path = f"/proc/self/fd/{(page := os.memfd_create('page'))}"
    writer = ProgressWriter(path)
    writer.phase(1, 2, Phase.VOTE)
    for index, value in words:
        os.pwrite(page, struct.pack("q", value), 8 * index)
    progress = read_progress(path, 5.0)
    os.close(page)
    assert 0 <= progress.alive_age_s <= 1e9
    observed = WorkerObserved(job_uid="u", slot=0, incarnation=1, pid=1, phase="running", progress=progress)  # type: ignore[arg-type]
    record_to_message(observed, records_pb2.WorkerObserved)


def test_a_phase_that_does_not_exist_is_one_that_nobody_knows(tmp_path: Path) -> None:
    path = tmp_path / "page"
    writer = ProgressWriter(str(path))
    for slot in progress_page._SLOTS:
        writer._words[slot + 2] = 99
    assert read_progress(str(path), 5.0).phase == GARBLED
    assert not GARBLED.known


def test_a_worker_cannot_cut_its_page_short() -> None:
    page = _make_page()
    ProgressWriter(f"/proc/self/fd/{page}").phase(1, 2, Phase.VOTE)
    with pytest.raises(PermissionError):
        os.ftruncate(page, 0)
    assert os.fstat(page).st_size == PAGE_BYTES
    assert read_progress(f"/proc/self/fd/{page}", 5.0).step == 2
    os.close(page)


def test_nobody_is_ready_without_a_process_id() -> None:
    """A worker can be quicker than the word that it was forked; ``kill -STOP 0`` would stop whoever says it."""
    told: list[WorkerObserved] = []
    events = WorkerEvents(
        changed=lambda: told.append(worker.observe(1.0)), figures=lambda *_: None, report=lambda _: None
    )
    worker = Worker(wanted(), entry="x:y", node_dir="", local_rank=0, secrets=None, events=events)
    end = BridgeEnd(worker._hear)
    for message in (bridge.Ready(7), bridge.Noticed("slow disk")):
        end.data_received(bridge.encode(message))
    assert not told
    assert (worker.observe(1.0).pid, worker.observe(1.0).phase) == (0, WorkerPhase.STARTING)
    worker.forked(MagicMock(spec=Child, pid=4711))
    assert {seen.pid for seen in told} == {4711}
    assert (told[-1].phase, told[-1].steps, told[-1].notices) == (WorkerPhase.READY, 7, ("slow disk",))
