"""Stopping a local installation: first politely, then for good; only processes that are surely ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainctl.core.errors import UnavailableError
from trainctl.core.system.memory_folder import memory_folder, remove_memory_folder
from trainctl.core.system.processes import ProcessId, end_processes, is_alive
from trainctl.core.system.run_folder import read_agents, read_controller

CONTROLLER_GRACE_S = 10.0
AGENT_GRACE_S = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """What was stopped.

    Attributes:
        controller: whether one was running.
        agents: names of the nodes whose agents were running.
        killed: how many processes did not end by themselves.
    """

    controller: bool
    agents: tuple[str, ...]
    killed: int


def stop(run_dir: Path) -> Stopped:
    """Ends the controller, so that nobody starts agents again, then the agents, which end their workers.

    Raises:
        PermissionDeniedError: they belong to somebody else.
        UnavailableError: one did not even end when killed.
    """
    controller = read_controller(run_dir)
    running = [controller.process] if controller is not None and controller.alive else []
    killed = _end(running, CONTROLLER_GRACE_S)
    known = read_agents(run_dir)
    agents = [agent for agent in known if agent.alive]
    killed += _end([agent.process for agent in agents], AGENT_GRACE_S)
    for agent in known:  # one that was killed has left its snapshots in memory
        remove_memory_folder(memory_folder(run_dir / "nodes" / agent.node))
    return Stopped(controller=bool(running), agents=tuple(agent.node for agent in agents), killed=killed)


def _end(processes: Sequence[ProcessId], grace_s: float) -> int:
    """Ends processes; returns how many had to be killed."""
    killed = end_processes(processes, grace_s)
    stuck = ", ".join(str(process.pid) for process in killed if is_alive(process))
    if stuck:
        raise UnavailableError(
            f"process {stuck} does not end, not even by SIGKILL", hint="is its disk or mount hanging?"
        )
    return len(killed)
