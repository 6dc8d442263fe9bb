"""The folder of an agent belongs to one agent, and to its user.

Without it another user of the machine reads logs and secrets of the jobs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainctl.agent.dir_lock import lock_folder
from trainctl.core.errors import PreconditionError


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def test_the_folder_of_an_agent_is_its_users_alone(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path / "above" / "node")
    assert stat.S_IMODE((tmp_path / "above" / "node").stat().st_mode) == 0o700
    with pytest.raises(PreconditionError, match="another agent"):
        lock_folder(tmp_path / "above" / "node")
    lock.release()


def test_one_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir(mode=0o755)
    lock_folder(tmp_path / "node").release()
    assert stat.S_IMODE((tmp_path / "node").stat().st_mode) == 0o755
