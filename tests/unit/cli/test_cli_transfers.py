"""How far saves, loads and long commands are, as people see it.

Without it long transfers would look like hangs.
"""

from __future__ import annotations

import io
import json
import time

import pytest

from trainctl.cli.render import top, transfers
from trainctl.cli.render.recoveries import describe
from trainctl.cli.streams.views import PROGRESS_EVERY_S, LiveView, PlainView
from trainctl.cli.terminal.console import Console
from trainctl.cli.terminal.progress import Progress
from trainctl.cli.terminal.style import PLAIN
from trainctl.protos.v1.job_pb2 import Job, JobStatus, Load, Recovery, TransferStatus
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

GIB = 1 << 30


def saving(done: float = 5.17, left_s: float | None = 31.2, total: float = 12.0) -> TransferStatus:
    return TransferStatus(
        kind="save", step=1200, done_bytes=int(done * GIB), total_bytes=int(total * GIB), left_s=left_s, workers=2,
        in_flight=1, age_s=23.0,
    )  # fmt: skip


def job_that_saves(controller: FakeController, name: str = "a") -> Job:
    job = controller.add_job(name, step=1210, total_steps=9000, loss=2.5, tokens_per_s=1234.0)
    job.status.transfers.append(saving())
    island = job.status.islands.add(id="island-0", generation=1, generation_phase="COMMITTED")
    for slot, done in enumerate((4.0, 1.16)):
        worker = island.workers.add(
            slot=slot, global_rank=slot, node="node-0", pid=slot + 1, state="ACTIVE", step=1210, phase="compute"
        )
        own = TransferStatus(kind="save", step=1200, done_bytes=int(done * GIB), total_bytes=6 * GIB)
        worker.transfer.CopyFrom(own)
    return job


@pytest.mark.parametrize(
    ("transfer", "expected"),
    [
        (saving(), "saving step 1200: 43 % of 12.0 GiB, 31s left"),
        (saving(left_s=None, done=0.0), "saving step 1200: 0 % of 12.0 GiB"),
        (saving(left_s=200.0), "saving step 1200: 43 % of 12.0 GiB, 3m20s left"),
        (saving(left_s=0.02, done=11.9999), "saving step 1200: 99 % of 12.0 GiB, 1s left"),
        (saving(left_s=0.0, done=12.0), "saving step 1200: all of 12.0 GiB, being completed"),
        (TransferStatus(kind="load", step=1100, age_s=4.4), "loading step 1100: begun 4s ago"),
        (TransferStatus(kind="levitate", step=1, age_s=4.4), "levitate step 1: begun 4s ago"),
    ],
)
def test_in_a_sentence(transfer: TransferStatus, expected: str) -> None:
    assert transfers.sentence(transfer) == expected


def test_everywhere_a_job_is_shown(cli: Cli, controller: FakeController) -> None:
    job_that_saves(controller)
    controller.add_job("quiet", step=3, total_steps=10)
    described = cli("describe", "a").out
    assert "Saving " in described
    assert "step 1200: 43 % of 12.0 GiB, 31s left" in described
    assert "compute, saving 66 %" in described
    assert "compute, saving 19 %" in described
    listed = cli("get", "jobs").out.splitlines()
    assert listed[0].split()[-1] == "STORAGE"
    assert {line.split()[0]: line.rstrip().endswith("saving 1200 43 %") for line in listed[1:]} == {
        "a": True,
        "quiet": False,
    }
    assert cli("top").out.splitlines()[0].split()[-3:] == ["STORAGE", "LAST", "EVENT"]
    one = cli("top", "a").out
    assert "a  RUNNING  step 1210/9000  saving step 1200: 43 % of 12.0 GiB, 31s left  loss 2.5000" in one
    assert "compute, saving 19 %" in one


def test_where_nothing_is_saved_there_is_no_column(cli: Cli, controller: FakeController) -> None:
    controller.add_job("quiet", step=3, total_steps=10)
    for words in (("get", "jobs"), ("top",), ("describe", "quiet"), ("top", "quiet")):
        out = cli(*words).out
        assert "STORAGE" not in out
        assert "saving" not in out.lower()


def test_a_workers_own_part_only_where_the_jobs_is_shown(controller: FakeController) -> None:
    job = job_that_saves(controller)
    del job.status.transfers[:]
    assert "saving" not in "".join(top.workers(job, now_s=time.time(), style=PLAIN))


def test_a_load_moves_on_also_where_no_step_is_done() -> None:
    out: list[str] = []
    now_s = 0.0
    view = PlainView(out.append, out.append, now_s=lambda: now_s)
    job = Job(status=JobStatus(phase="RECOVERING", step=7, total_steps=9))
    view.job(job)
    for done in (1, 2, 3):
        del job.status.transfers[:]
        job.status.transfers.add(kind="load", step=5, done_bytes=done * GIB, total_bytes=4 * GIB, age_s=done)
        view.job(job)
        now_s += PROGRESS_EVERY_S
    del job.status.transfers[:]
    view.job(job)
    assert len(out) == 3, out
    assert ["50 %" in line for line in out] == [False, True, False]
    assert "loading step 5: 75 % of 4.0 GiB" in out[-1]


def test_the_live_line_shows_it_before_what_may_be_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(io.StringIO(), io.StringIO(), env={})
    monkeypatch.setattr(Console, "width", lambda self: 80)
    out = io.StringIO()
    view = LiveView(console, out)
    status = JobStatus(phase="RUNNING", step=1210, total_steps=9000, loss=2.5, tokens_per_s=1234.0)
    status.transfers.append(saving())
    view.job(Job(status=status))
    assert "saving step 1200: 43 % of 12.0 GiB, 31s left" in out.getvalue()


def test_saves_are_told_with_what_they_waited_for(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", step=9, total_steps=10)
    job.status.saves.add(
        generation=1, step=5, uri="s3://b/step-5/x", seconds=3.21, stall_s=0.02, ranks=4, data_bytes=12 * GIB,
        bottleneck="write of rank 2 on s3: 3.00 s",
    ).parts.add(rank=2, data_bytes=3 * GIB, seconds={"write": 3.0})  # fmt: skip
    assert (
        "Saves:\n  step 5 to s3, 12.0 GiB of 4 ranks in 3.21 s, of which training waited 0.02 s; "
        "longest write of rank 2 on s3: 3.00 s\n"
    ) in cli("describe", "a").out
    (saved,) = json.loads(cli("describe", "a", "-o", "json").out)["status"]["saves"]
    (part,) = saved["parts"]
    assert (part["rank"], part["dataBytes"], part["seconds"]) == (2, 3 * GIB, {"write": 3.0})


def test_loads_are_told_with_their_recovery_or_alone(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", step=9, total_steps=10)
    load = {"uri": "s3://b/step-5/x", "seconds": 3.21, "ranks": 4, "data_bytes": 12 * GIB, "moved_bytes": 12 * GIB}
    job.status.loads.add(generation=1, step=5, **load)
    job.status.loads.add(
        generation=3, step=7, **{**load, "moved_bytes": 18 * GIB}, bottleneck="read of rank 2 on s3: 3.00 s"
    )
    job.status.recoveries.add(generation=3, fault="worker 1 exited", rung="checkpoint")
    job.status.loads.add(generation=4, step=8, **{**load, "uri": "snapshot://step-000000000008/x"}, healed_reads=1)
    out = cli("describe", "a").out
    assert "  generation 1: step 5 from s3, 12.0 GiB into 4 ranks in 3.21 s\n" in out
    told = "  generation 4: step 8 from a snapshot, 12.0 GiB into 4 ranks in 3.21 s; 1 read only right when repeated\n"
    assert told in out
    expected = (
        "load     step 7 from s3, 12.0 GiB into 4 ranks in 3.21 s, 1.50 bytes read for each; "
        "longest read of rank 2 on s3: 3.00 s"
    )
    assert expected in out
    assert out.count("12.0 GiB into 4 ranks") == 3


def test_a_recovery_without_a_load_says_nothing_of_one() -> None:
    assert not any("load" in line for line in describe(Recovery(generation=2, fault="f", rung="peer")))
    assert any(line.startswith("  load  ") for line in describe(Recovery(generation=2), load=Load(step=3, uri="/c")))


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_long_command_says_how_far_it_is() -> None:
    clock, err = Clock(), io.StringIO()
    with Progress(Console(io.StringIO(), err, env={}), "verified", now_s=clock) as progress:
        for done in range(1, 13):
            clock.now_s += 0.9
            progress.at(done * GIB, 12 * GIB)
    assert err.getvalue().splitlines() == [
        "16 % of 12.0 GiB verified, 9s left",
        "66 % of 12.0 GiB verified, 4s left",
    ]


def test_on_a_terminal_it_is_one_line_that_is_gone_at_the_end() -> None:
    clock, err = Clock(), Terminal()

    def interrupted() -> None:
        with Progress(Console(io.StringIO(), err, env={}), "exported", now_s=clock) as progress:
            clock.now_s += 2
            progress.at(GIB, 4 * GIB)
            progress.at(2 * GIB, 4 * GIB)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert err.getvalue() == "\r\x1b[2K25 % of 4.0 GiB exported, 6s left\r\x1b[2K"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_short_one_and_a_quiet_one_say_nothing(quiet: bool) -> None:
    clock, err = Clock(), Terminal()
    with Progress(Console(io.StringIO(), err, env={}, quiet=quiet), "verified", now_s=clock) as progress:
        clock.now_s += 30.0 if quiet else 0.9
        progress.at(1, 2)
    assert err.getvalue() == ""
