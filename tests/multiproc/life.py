"""A worker process of a test, and what is known of it."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from typing import Any

from trainctl.core.records.step import StepReport
from trainctl.core.records.worker import Instruction, Progress, RecoveryReport, WorkerError
from trainctl.parallel.bridge import Failed, WorkerBridge
from trainctl.parallel.progress_page import ProgressWriter, read_progress
from trainctl.parallel.worker import describe


def fork_server() -> ForkServerContext:
    """Makes processes that have torch already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "trainctl.parallel.worker"])
    return context


Program = Callable[[WorkerBridge, ProgressWriter, Mapping[str, Any]], None]
"""What a worker process runs: gets its bridge, its page and the world's options."""


def run_program(
    program: Program,
    sock: socket.socket,
    page_path: str,
    stacks: str,
    env: Mapping[str, str],
    options: Mapping[str, Any],
) -> None:
    """The whole life of a worker process."""
    os.environ.update(env)
    with open(stacks, "w") as file:
        faulthandler.register(signal.SIGUSR1, file=file, all_threads=True)
        bridge = WorkerBridge(sock.detach())
        try:
            program(bridge, ProgressWriter(page_path), options)
        except SystemExit:  # it has said why
            pass
        except Exception as error:
            bridge.send(Failed(describe(error, step=0)))
        bridge.flush(2.0)
        os._exit(0)  # without the destructors of groups that still wait for a frozen peer


@dataclass
class Life:
    """One life of a worker, as the tiny controller sees it."""

    slot: int
    incarnation: int
    process: Any
    sock: socket.socket
    page: str
    stacks: str
    ready: bool = False
    report: StepReport | None = None
    running: int = 0
    finished: bool = False
    error: WorkerError | None = None
    recoveries: list[RecoveryReport] = field(default_factory=list)
    told: tuple[Instruction, int, bool, bool] | None = None

    @property
    def pid(self) -> int:
        pid: int = self.process.pid
        return pid

    @property
    def alive(self) -> bool:
        alive: bool = self.process.is_alive()
        return alive

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def progress(self) -> Progress:
        return read_progress(self.page, time.monotonic())
