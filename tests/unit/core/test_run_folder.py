"""What lies in the folder of a local installation.

Without it a damaged record could end whoever looks, or the one who reads could miss what the other one wrote.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainctl.core.errors import PreconditionError
from trainctl.core.system.processes import ProcessId, identify
from trainctl.core.system.run_folder import (
    ControllerEnd,
    LocalAgent,
    LocalController,
    read_agent,
    read_agents,
    read_controller,
    read_end,
    write_agent,
    write_controller,
    write_end,
)

GONE = ProcessId(pid=7, start_ticks=1)
DAMAGED = ["", "{", "[]", "[" * 100_000, '{"pid": null}', '{"pid": "x"}', '{"pid": 7, "start_ticks": Infinity}']


def test_what_is_written_is_read(tmp_path: Path) -> None:
    own = identify(os.getpid())
    assert own is not None
    assert (read_controller(tmp_path), read_end(tmp_path), read_agents(tmp_path)) == (None, None, ())
    end = ControllerEnd(at_s=7.0, code="CODE", message="why", hint="what to do")
    write_end(tmp_path, end)
    assert read_end(tmp_path) == end
    controller = LocalController(process=own, address="h:1", version="1", started_s=3.5, secrets="/s")
    write_controller(tmp_path, controller)
    assert read_controller(tmp_path) == controller
    assert controller.alive
    assert read_end(tmp_path) is None, "one runs again"
    for node in ("node-1", "node-0"):
        (tmp_path / "nodes" / node).mkdir(parents=True)
        write_agent(tmp_path / "nodes" / node, GONE, slots=2)
    assert read_agents(tmp_path) == tuple(LocalAgent(node=node, process=GONE) for node in ("node-0", "node-1"))


@pytest.mark.parametrize("content", DAMAGED, ids=range(len(DAMAGED)))
def test_what_is_damaged_is_said_so_with_what_to_do(tmp_path: Path, content: str) -> None:
    for name, read in (("controller.json", read_controller), ("agent.json", read_agent)):
        (tmp_path / name).write_text(content)
        with pytest.raises(PreconditionError, match=f"{name} is damaged") as raised:
            read(tmp_path)
        assert "delete it" in raised.value.hint
    (tmp_path / "ended.json").write_text(content)
    assert read_end(tmp_path) is None, "it only explains"
