"""The worker process: builds the task, opens a session under its agent, trains, and says how it ended."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path

import torch

from trainctl.core.codec import from_wire
from trainctl.core.errors import DamagedCheckpointError, InternalError, TrainctlError
from trainctl.core.records.spec import ResourcesSpec, TrainJob
from trainctl.core.records.worker import WorkerError
from trainctl.core.timeouts import Timeouts
from trainctl.parallel.bridge import Failed, WorkerBridge
from trainctl.parallel.command.launcher import launch
from trainctl.parallel.loop import train
from trainctl.parallel.progress_page import ProgressWriter
from trainctl.parallel.session import Session
from trainctl.parallel.session.attachment import Attachment, attach
from trainctl.parallel.session.late_start import told_of_late_start
from trainctl.parallel.session.program import check_finished, run_program
from trainctl.parallel.tasks.device import device_of
from trainctl.parallel.user_frames import begin_with_user

THREADS_VARIABLE = "TRAINCTL_THREADS"
_RESOLVER = "timeout:1 attempts:3"
"""The store client of torch looks up names even of numeric addresses; by default a lost packet costs 5 s there."""
_TRACEBACK_BYTES = 8 * 1024
_FLUSH_S = 2.0


def main(bridge_fd: int, page_path: str, node_dir: str) -> None:
    """Runs one worker to its end; what a fork server calls in the child.

    The model is built before the first generation record is there, so that a replacement can be restored at once.

    Args:
        bridge_fd: the worker's end of the socket pair to its agent.
        page_path: the progress page.
        node_dir: folder of the node; caches are kept under it.

    Raises:
        SystemExit: with 1 after an exception, which the agent was told of.
    """
    page = ProgressWriter(page_path)
    run(WorkerBridge(bridge_fd), page, node_dir)


def run(bridge: WorkerBridge, page: ProgressWriter, node_dir: str) -> None:
    """``main`` on an open bridge and page."""
    os.environ.setdefault("RES_OPTIONS", _RESOLVER)
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(levelname).1s %(name)s: %(message)s")
    with attach(bridge, page) as attachment:
        try:
            job = from_wire(TrainJob, bridge.latest().spec)
            torch.set_num_threads(threads(job.spec.resources))
            _train(job, attachment, node_dir)
        except Exception as error:
            begin_with_user(error)
            report = describe(error, step=attachment.session.open_step if attachment.session else 0)
            print(*report.lines, sep="\n", flush=True)
            bridge.send(Failed(report))
            bridge.flush(_FLUSH_S)
            raise SystemExit(1) from None
        finally:
            if attachment.session is not None:
                attachment.session.close()
    bridge.flush(_FLUSH_S)


def _train(job: TrainJob, attachment: Attachment, node_dir: str) -> None:
    """The built-in loop, or the user's own program."""
    if job.spec.runs_command:
        launch(attachment.control, attachment.page, job, node_dir=Path(node_dir), threads=threads(job.spec.resources))
    elif job.spec.command:
        with told_of_late_start(attachment, Timeouts.for_profile(job.spec.recovery.profile).boot_s):
            run_program(job.spec.command, job.spec.launch.workdir)
        check_finished(attachment.session)
    else:
        train(Session.open(), job.spec.train, os.path.join(node_dir, "cache"), device_of(job.spec.resources))


def threads(resources: ResourcesSpec) -> int:
    """Intra-op threads: what the job or the agent says, else an equal share of the cores this process may use."""
    told = resources.threads_per_worker or int(os.environ.get(THREADS_VARIABLE, "0"))
    return told or max(1, len(os.sched_getaffinity(0)) // max(1, resources.workers_per_node))


def is_expected(error: Exception) -> bool:
    """Whether its message says all that there is to say: data or a checkpoint that cannot be used, for example."""
    return isinstance(error, TrainctlError) and not isinstance(error, InternalError)


def describe(error: Exception, *, step: int) -> WorkerError:
    """The exception as the controller keeps it: with its code if it is ours, else as the user's."""
    text = "".join(traceback.format_exception(error)).encode(errors="replace")
    return WorkerError(
        type=type(error).__name__,
        message=_unicode(str(error)),
        traceback="" if is_expected(error) else text[-_TRACEBACK_BYTES:].decode(errors="replace"),
        step=step,
        code=error.code if isinstance(error, TrainctlError) else "USER_EXCEPTION",
        hint=_unicode(error.hint) if isinstance(error, TrainctlError) else "",
        checkpoint=error.uri if isinstance(error, DamagedCheckpointError) else "",
    )


def _unicode(text: str) -> str:
    """An error may name a file whose name is none, which cannot be printed."""
    return text.encode(errors="replace").decode()
