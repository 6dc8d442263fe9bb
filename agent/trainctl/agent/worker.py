"""One life of one worker, from the fork to its confirmed exit: its process, bridge, progress page and output."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from trainctl.agent.bridge_end import BridgeEnd
from trainctl.agent.forkserver.client import Child, ForkServerClient
from trainctl.agent.heard import cut_lines, fitting
from trainctl.agent.logs.store import LogCapture
from trainctl.agent.state import Life, key_of
from trainctl.core.errors import UnavailableError
from trainctl.core.plain import is_mapping
from trainctl.core.records.snapshot import SnapshotsMade
from trainctl.core.records.step import StepFigures
from trainctl.core.records.worker import (
    CheckpointReport,
    Instruction,
    RecoveryReport,
    WorkerDesired,
    WorkerError,
    WorkerObserved,
    WorkerPhase,
)
from trainctl.core.system.memory_folder import FAILURE_DOMAIN_VARIABLE, MEMORY_VARIABLE
from trainctl.core.system.secret_files import SecretUnusableError, read_secrets
from trainctl.parallel import bridge
from trainctl.parallel.progress_page import PAGE_BYTES, read_progress

_LOG = logging.getLogger(__name__)
_DRAIN_S = 0.2
"""By so much an exit may be told late."""
_NOTICES = 16
_KILLED = -int(signal.SIGKILL)
NEVER_STARTED_CODE = "WORKER_NOT_STARTED"
UNEXPLAINED_EXIT_CODE = "WORKER_EXIT"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEvents:
    """Where a worker's news go.

    Attributes:
        changed: something that the controller wants to know at once.
        figures: committed steps of a job.
        report: a checkpoint or recovery report.
    """

    changed: Callable[[], None]
    figures: Callable[[str, tuple[StepFigures, ...]], None]
    report: Callable[[CheckpointReport | RecoveryReport], None]


class Worker:
    """Supervised life of a worker; ``start`` it once.

    Args:
        desired: what it is told first.
        entry: ``module:function`` that it runs.
        node_dir: folder of the node, for caches.
        local_rank: its number on the node, which picks its accelerator.
        secrets: folder of the values that jobs want by name; None: there are none.
        memory: folder for snapshots; None: there is none.
        failure_domain: what the node fails together with; empty: with no other one.
        events: who is told.
    """

    def __init__(
        self,
        desired: WorkerDesired,
        *,
        entry: str,
        node_dir: str,
        local_rank: int,
        secrets: Path | None,
        memory: Path | None = None,
        failure_domain: str = "",
        events: WorkerEvents,
    ) -> None:
        self.key = key_of(desired)
        self.local_rank = local_rank
        self.exited = asyncio.Event()
        self._entry = entry
        self._node_dir = node_dir
        self._secrets = secrets
        self._memory = memory
        self._failure_domain = failure_domain
        self._events = events
        self._life = Life(key=self.key, instructed=desired)
        self._observed = WorkerObserved(
            job_uid=desired.job_uid, slot=desired.slot, incarnation=desired.incarnation, pid=0,
            phase=WorkerPhase.STARTING,
        )  # fmt: skip
        self._exited_at_s = 0.0
        self._snapshots_at_s = 0.0
        self._child: Child | None = None
        self._bridge: BridgeEnd | None = None
        self._early: list[bridge.WorkerMessage] = []
        self._log: LogCapture | None = None
        self._page_fd = -1
        self._task: asyncio.Task[None] | None = None

    @property
    def life(self) -> Life:
        """For the next decision."""
        return self._life

    @property
    def job_name(self) -> str:
        """Name of its job."""
        return self._life.instructed.job_name

    def observe(self, now_s: float) -> WorkerObserved:
        """What the controller is told; ``now_s`` is monotonic."""
        age_s = max(0.0, now_s - self._exited_at_s) if self._life.exited else 0.0
        made = self._observed.snapshots
        if made is not None:
            made = replace(made, age_s=max(0.0, now_s - self._snapshots_at_s))
        return replace(self._observed, exited_age_s=age_s, snapshots=made)

    def start(self, server: ForkServerClient, capture: LogCapture) -> None:
        """Begins its life; returns at once."""
        self._log = capture
        self._task = asyncio.get_running_loop().create_task(self._run(server, capture))

    def decline(self) -> None:
        """Ends its life before it began."""
        self._end(_KILLED)

    def instruct(self, desired: WorkerDesired) -> None:
        """Hands it a new instruction."""
        stopping_since_s = None
        if desired.instruction is Instruction.STOP:
            stopping_since_s = self._life.stopping_since_s or time.monotonic()
        self._life = replace(self._life, instructed=desired, stopping_since_s=stopping_since_s)
        if self._bridge is not None:
            self._bridge.send(bridge.Instruct(desired))

    def terminate(self) -> None:
        """SIGTERM."""
        since_s = self._life.stopping_since_s or time.monotonic()
        self._life = replace(self._life, terminated=True, stopping_since_s=since_s)
        if self._child is not None:
            self._child.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, also if it is stopped, and also if it is only about to be forked."""
        self._life = replace(self._life, killed=True)
        if self._child is not None:
            self._child.signal(signal.SIGKILL)

    def sample(self, now_s: float) -> None:
        """Reads its progress page."""
        if self._page_fd >= 0 and not self._life.exited:
            self._set(progress=read_progress(f"/proc/self/fd/{self._page_fd}", now_s))

    def weigh(self) -> None:
        """Reads its resident memory."""
        if self._observed.pid == 0 or self._life.exited:
            return
        with contextlib.suppress(OSError, ValueError, IndexError):
            with open(f"/proc/{self._observed.pid}/statm") as file:
                pages = int(file.read().split()[1])
            self._set(rss_bytes=pages * os.sysconf("SC_PAGE_SIZE"))

    def close(self) -> None:
        """Gives back what is held for reports about it; only after its exit."""
        if self._page_fd >= 0:
            os.close(self._page_fd)
            self._page_fd = -1

    async def _run(self, server: ForkServerClient, capture: LogCapture) -> None:
        try:
            child = await self._fork(server, capture)
        except (OSError, UnavailableError, SecretUnusableError) as error:
            _LOG.error("worker %s was not started: %s", self.key, error)
            if self._bridge is not None:
                # Should it have been forked after all, its end of the bridge tells when it died.
                await _wait_for(self._bridge.ended, 25 * _DRAIN_S)
            known = error if isinstance(error, SecretUnusableError) else None
            reason, hint = (known.code, known.hint) if known is not None else (NEVER_STARTED_CODE, "")
            self._set(error=WorkerError(type=type(error).__name__, message=str(error), code=reason, hint=hint))
            self._end(_KILLED)
            return
        self.forked(child)
        code = await child.exited
        self.sample(time.monotonic())
        assert self._bridge is not None
        await last_words(self._bridge.ended, capture.ended)
        self._end(code)

    def forked(self, child: Child) -> None:
        """Its process is there, and may have said something already."""
        self._child = child
        self._set(pid=child.pid)
        early, self._early = self._early, []
        for message in early:
            self._take_in(message)
        if self._life.killed:
            child.signal(signal.SIGKILL)
        elif self._life.terminated:
            child.signal(signal.SIGTERM)
        self._events.changed()

    async def _fork(self, server: ForkServerClient, capture: LogCapture) -> Child:
        """Makes the descriptors, connects our ends, and has the other ends handed to a new process.

        Raises:
            UnavailableError: the fork server could not.
            SecretUnusableError: the job wants a secret that this node does not have.
            OSError: this process is out of descriptors.
        """
        loop = asyncio.get_running_loop()
        env = _env(self._life.instructed, self.local_rank, self._secrets, self._memory)
        env[FAILURE_DOMAIN_VARIABLE] = self._failure_domain
        self._page_fd = _make_page()
        ours, theirs = socket.socketpair()
        with theirs:
            _, self._bridge = await loop.create_connection(lambda: BridgeEnd(self._hear), sock=ours)
            self._bridge.send(bridge.Instruct(self._life.instructed))
            with _log_pipe() as (read_end, write_end):
                await loop.connect_read_pipe(lambda: capture, os.fdopen(read_end, "rb", buffering=0))
                fds = {"bridge_fd": theirs.fileno(), "log": write_end, "page_path": self._page_fd}
                return await server.spawn(
                    self._entry,
                    fds=fds,
                    arguments={"node_dir": self._node_dir},
                    env=env,
                )

    def _hear(self, message: bridge.Message) -> None:
        """Raises: WireError: the controller could not be told of it."""
        message = fitting(message, self.key.job_uid)
        if self._child is None:  # it can be quicker than the word that it was forked: nobody is READY without a pid
            self._early.append(message)
        else:
            self._take_in(message)

    def _take_in(self, message: bridge.WorkerMessage) -> None:
        match message:
            case bridge.Figures(figures):
                self._events.figures(self.key.job_uid, figures)
                return
            case bridge.Checkpointed(report) | bridge.Recovered(report):
                self._events.report(report)
                return
            case bridge.Snapshotted(made):
                self._note(made)
                if made.made > 1 and not made.error:  # they come often: the next heartbeat takes it along
                    return
            case bridge.Ready(steps):
                self._set(phase=WorkerPhase.READY, steps=steps)
            case bridge.Reported(report):
                self._set(report=report)
            case bridge.Running(generation):
                self._set(phase=WorkerPhase.RUNNING, generation=generation)
            case bridge.Finished():
                self._set(phase=WorkerPhase.FINISHED)
            case bridge.Noticed(text):
                self._set(notices=(*self._observed.notices, text)[-_NOTICES:])
            case bridge.Failed(error):
                self._set(error=error)
        self.sample(time.monotonic())
        self._events.changed()

    def _note(self, made: SnapshotsMade) -> None:
        known = self._observed.snapshots
        if known is None or (known.generation, known.made) != (made.generation, made.made):
            self._snapshots_at_s = time.monotonic()
        self._set(snapshots=made)

    def _end(self, code: int) -> None:
        """Its exit is confirmed."""
        tail = cut_lines(self._log.tail) if self._log is not None else ()
        error = self._observed.error
        if error is None and code > 0 and code != bridge.ORPHANED_EXIT_CODE:
            step = self._observed.progress.step
            message = f"the worker ended with exit code {code} and did not say why; its last lines tell more"
            error = WorkerError(type="SystemExit", message=message, code=UNEXPLAINED_EXIT_CODE, step=step)
        if error is not None:
            said = frozenset(error.lines)  # what it printed about the error itself need not be shown twice
            error = replace(error, log_tail=tuple(line for line in tail if line not in said))
        progress = replace(self._observed.progress, transfer=None)  # what it was about to save or load, it is no more
        self._set(phase=WorkerPhase.EXITED, exit_code=code, error=error, rss_bytes=0, progress=progress)
        self._exited_at_s = time.monotonic()
        self._life = replace(self._life, exited=True)
        if self._bridge is not None:
            self._bridge.close()
        if self._log is not None:
            self._log.close()
        self.exited.set()
        self._events.changed()

    def _set(self, **changes: object) -> None:
        self._observed = replace(self._observed, **changes)  # type: ignore[arg-type]


@contextlib.contextmanager
def _log_pipe() -> Generator[tuple[int, int], None, None]:
    """A pipe whose write end is closed afterwards; the read end belongs to whoever reads."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        yield read_end, write_end
    finally:
        os.close(write_end)


def _make_page() -> int:
    """A page that stays as long as it is: to read of one that its worker cut short would end the agent (SIGBUS)."""
    page = os.memfd_create("trainctl-progress", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(page, PAGE_BYTES)
    fcntl.fcntl(page, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return page


async def last_words(*ends: asyncio.Event) -> None:
    """What an ended worker wrote may still be in the kernel: until its pipes end, or until ``_DRAIN_S`` is over.

    They end at once, unless a child of it that left its process group holds them; what that writes nobody waits for.
    """
    await asyncio.gather(*(_wait_for(end, _DRAIN_S) for end in ends))


async def _wait_for(event: asyncio.Event, timeout_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)


def _env(desired: WorkerDesired, local_rank: int, secrets: Path | None, memory: Path | None) -> dict[str, str]:
    """What the job file wants in the environment, which worker of the node this is, and where it keeps snapshots."""
    spec = desired.spec.get("spec")
    env = spec.get("env") if is_mapping(spec) else None
    names = spec.get("secretEnv") if is_mapping(spec) else None
    listed = cast("Sequence[object]", names) if isinstance(names, Sequence) else None
    wanted = {str(name): str(value) for name, value in env.items()} if is_mapping(env) else {}
    secret = read_secrets(secrets, [str(name) for name in listed]) if listed is not None else {}
    return {**wanted, **secret, "LOCAL_RANK": str(local_rank), MEMORY_VARIABLE: str(memory or "")}
