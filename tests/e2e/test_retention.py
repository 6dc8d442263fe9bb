"""Which checkpoints lie in a job's folder, on a real installation: those that the controller lists, and no others.

Without it a folder could fill with checkpoints, or miss one that the job has to go back to.
"""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from e2e.local_system import LocalSystem, tiny_job, workers
from trainctl.checkpoint.kept.catalog import survey

pytestmark = pytest.mark.e2e
STEPS, KEEP = 60, 2


def submit(
    system: LocalSystem, corpus: Path, name: str, *, keep: int = KEEP, steps: int = STEPS, **options: Any
) -> None:
    job = tiny_job(name, corpus, steps=steps, interval_steps=5, **options)
    system.submit(job, "--set", f"spec.checkpoint.keep.last={keep}")


def there(system: LocalSystem, name: str) -> list[int]:
    folder = Path(system.job(name).status.workdir) / "checkpoints"
    return sorted(info.ref.step for info in survey(str(folder)).checkpoints)


def listed(system: LocalSystem, name: str) -> list[int]:
    found = json.loads(system.cli("checkpoints", "list", name, "-o", "json").stdout)["checkpoints"]
    return sorted(one["step"] for one in found)


@pytest.mark.parametrize("lost", [(), (0,), (0, 1, 2, 3)], ids=["nothing", "rank-0", "all"])
def test_a_job_that_ended_leaves_what_is_listed(system: LocalSystem, corpus: Path, lost: tuple[int, ...]) -> None:
    name = f"lost-{len(lost)}"
    submit(system, corpus, name)
    job = system.wait(name, "a checkpoint", lambda job: job.status.checkpoint.step >= 10)
    for rank in lost:
        os.kill(workers(job)[rank].pid, signal.SIGKILL)
    ended = system.wait_phase(name, "SUCCEEDED", 90)
    assert there(system, name) == listed(system, name) == [STEPS - 5, STEPS]
    assert ended.status.checkpoint.step == STEPS


def test_with_one_to_keep_each_is_read_back_before_the_one_before_goes(system: LocalSystem, corpus: Path) -> None:
    submit(system, corpus, "one", keep=1)
    system.wait_phase("one", "SUCCEEDED", 120)
    assert there(system, "one") == listed(system, "one") == [STEPS]
    events = json.loads(system.cli("events", "one", "-o", "json").stdout)["events"]
    read = [int(event["fields"]["step"]) for event in events if event["type"] == "checkpoint.read_back"]
    assert read[-1] == STEPS
    assert read == sorted(set(read)), "each once"


def test_a_paused_and_a_cancelled_job_leave_what_is_listed(system: LocalSystem, corpus: Path) -> None:
    submit(system, corpus, "stops", steps=100_000)  # more than it comes to, however slow who stops it is
    system.wait("stops", "checkpoints", lambda job: job.status.checkpoint.step >= 15)
    system.cli("pause", "stops")
    system.wait_phase("stops", "PAUSED", 60)
    assert there(system, "stops") == listed(system, "stops")
    assert len(there(system, "stops")) == KEEP
    system.cli("resume", "stops")
    at = system.wait_phase("stops", "RUNNING", 60).status.step
    system.wait_step("stops", at + 8)
    system.cli("cancel", "stops", "-y", check=False)
    system.wait_phase("stops", "CANCELLED", 60)
    assert there(system, "stops") == listed(system, "stops")
    assert len(there(system, "stops")) == KEEP
