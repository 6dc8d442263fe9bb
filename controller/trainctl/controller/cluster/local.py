"""Agents as processes of this machine, each in a session of its own, so that they outlive the controller."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from trainctl.controller.cluster.port import AgentProcess, AgentRequest
from trainctl.core.errors import PreconditionError, UnavailableError
from trainctl.core.system.processes import ProcessId, end_processes, identify, is_alive
from trainctl.core.system.run_folder import AGENT_FILE, read_agent, write_agent

GRACE_S = 10.0

Command = Callable[[AgentRequest, Path], Sequence[str]]
"""From a request and the node's folder to the command line of its agent."""


class LocalCluster:
    """Implements ``Cluster`` with child processes; their identities are kept in ``<node>/agent.json``.

    A controller that starts again in the same folder adopts the agents that still run. An exit is noticed through a
    pidfd, at once, whether the agent is a child of this process or was adopted.
    """

    def __init__(self, folder: Path, nodes: Sequence[AgentRequest], command: Command) -> None:
        self._folder = folder
        self._nodes = {request.node: request for request in nodes}
        self._command = command
        self._children: set[int] = set()
        self._exit_codes: dict[int, int] = {}
        self._watched: dict[str, tuple[ProcessId, int]] = {}
        self._callbacks: list[Callable[[], None]] = []

    async def inventory(self) -> tuple[AgentRequest, ...]:
        """The nodes of this installation."""
        return tuple(self._nodes[name] for name in sorted(self._nodes))

    async def observe(self) -> tuple[AgentProcess, ...]:
        """Every node that ever had an agent in this folder."""
        found: list[AgentProcess] = []
        for node in sorted(path.parent.name for path in self._folder.glob(f"*/{AGENT_FILE}")):
            process = self._known(node)
            if process is not None:
                self._watch(node, process)
                alive = is_alive(process)
                code = None if alive else self._exit_code(process.pid)
                found.append(AgentProcess(node=node, pid=process.pid, alive=alive, exit_code=code))
        return tuple(found)

    async def create(self, request: AgentRequest) -> AgentProcess:
        """Starts the agent with its output in ``<node>/agent.log``.

        Raises:
            UnavailableError: the process could not be started.
        """
        folder = self._folder / request.node
        known = self._known(request.node)
        if known is not None and is_alive(known):
            return AgentProcess(node=request.node, pid=known.pid, alive=True)
        try:
            pid = self._spawn(request, folder)
        except OSError as error:
            raise UnavailableError(f"cannot start the agent of {request.node}: {error}") from error
        process = identify(pid)
        if process is None:
            raise UnavailableError(f"the agent of {request.node} ended at once", hint=f"see {folder / 'agent.log'}")
        self._children.add(pid)
        write_agent(folder, process, slots=request.slots)
        self._watch(request.node, process)
        return AgentProcess(node=request.node, pid=process.pid, alive=True)

    async def delete(self, node: str) -> None:
        """SIGTERM, then SIGKILL after ``GRACE_S``; signals exactly the process that was started."""
        process = self._known(node)
        if process is not None:
            await asyncio.to_thread(end_processes, [process], GRACE_S)
            self._exit_code(process.pid)

    def on_change(self, callback: Callable[[], None]) -> None:
        """Registers a callback for exits."""
        self._callbacks.append(callback)

    async def close(self) -> None:
        """Stops watching; the agents run on."""
        for _, descriptor in self._watched.values():
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)
        self._watched.clear()

    def _watch(self, node: str, process: ProcessId) -> None:
        known = self._watched.get(node)
        if (known is not None and known[0] == process) or not is_alive(process):
            return
        self._unwatch(node)
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        self._watched[node] = (process, descriptor)
        asyncio.get_running_loop().add_reader(descriptor, self._exited, node, process.pid)

    def _unwatch(self, node: str) -> None:
        known = self._watched.pop(node, None)
        if known is not None:
            asyncio.get_running_loop().remove_reader(known[1])
            os.close(known[1])

    def _exited(self, node: str, pid: int) -> None:
        self._unwatch(node)
        self._exit_code(pid)
        for callback in self._callbacks:
            callback()

    def _spawn(self, request: AgentRequest, folder: Path) -> int:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = list(self._command(request, folder))
        log = os.open(folder / "agent.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            redirect = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((null, 0), (log, 1), (log, 2))]
            return os.posix_spawn(command[0], command, os.environ, file_actions=redirect, setsid=True)
        finally:
            os.close(null)
            os.close(log)

    def _exit_code(self, pid: int) -> int | None:
        """Reaps a child that ended; None for an adopted process, whose code only its parent could know."""
        if pid in self._children:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._children.discard(pid)
                self._exit_codes[pid] = os.waitstatus_to_exitcode(status)
        return self._exit_codes.get(pid)

    def _known(self, node: str) -> ProcessId | None:
        """The node's newest agent; of a damaged file nobody can tell which it was."""
        try:
            agent = read_agent(self._folder / node)
        except PreconditionError:
            return None
        return agent.process if agent is not None else None
