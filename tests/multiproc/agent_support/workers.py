"""What a worker does in these tests, chosen by the job's environment."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from trainctl.core.records.part import Transfer, TransferKind
from trainctl.core.records.step import Phase, StepFigures, StepReport
from trainctl.core.records.worker import CheckpointReport, Instruction, WorkerDesired, WorkerError
from trainctl.parallel.bridge import (
    Checkpointed,
    Failed,
    Figures,
    Finished,
    Ready,
    Reported,
    Running,
    WorkerBridge,
)  # fmt: skip
from trainctl.parallel.progress_page import ProgressWriter

BEHAVIOUR = "FAKE_WORKER"


def main(bridge_fd: int, page_path: str, node_dir: str) -> None:
    behaviour = os.environ.get(BEHAVIOUR, "")
    bridge, page = WorkerBridge(bridge_fd), ProgressWriter(page_path)
    print(f"worker of {node_dir} with local rank {os.environ['LOCAL_RANK']} as {behaviour or 'default'}")
    if behaviour == "raise":
        error = WorkerError(type="ValueError", message="as asked", step=3, code="DATA_UNUSABLE", hint="ask for less")
        print(*error.lines, sep="\n")
        bridge.send(Failed(error))
        bridge.flush(5)
        sys.exit(1)
    if behaviour == "exit":
        print("last words, without a newline", end="")
        sys.exit(3)
    if behaviour == "modules":
        threads = len(os.listdir("/proc/self/task"))
        print(f"threads={threads} modules=" + ",".join(sorted({name.split(".")[0] for name in sys.modules})))
    if behaviour == "environment":
        print("environment=" + ",".join(f"{name}={value}" for name, value in os.environ.items()))
    if behaviour == "babble":
        for number in range(20_000):
            print(f"line {number} " + "x" * 80)
        print("long " + "y" * 100_000)
    if behaviour == "grandchild":
        if os.fork() == 0:
            signal.pause()
        print("has a child")
    if behaviour == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if behaviour == "saving":
        moving = Transfer(kind=TransferKind.SAVE, step=7, done_bytes=3, total_bytes=9)
        page.transfer(moving, time.monotonic() - 60.0)
    page.phase(0, 0, Phase.READY)
    bridge.send(Ready())
    serve(bridge, page, behaviour)


def serve(bridge: WorkerBridge, page: ProgressWriter, behaviour: str) -> None:
    version, step, generation = 0, 0, 0
    while True:
        desired = bridge.wait_newer(version, 0.02)
        page.touch()
        if desired is not None:
            version = bridge.version
            if desired.instruction is Instruction.STOP and behaviour != "stubborn":
                bridge.send(Finished(step))
                bridge.flush(5)
                return
            generation = obey(desired, bridge, page, generation)
        if behaviour == "figures" and generation:
            step += 1
            bridge.send(Figures((figures(step, generation),)))
            page.phase(generation, step, Phase.APPLIED)


def obey(desired: WorkerDesired, bridge: WorkerBridge, page: ProgressWriter, generation: int) -> int:
    if desired.instruction is Instruction.PREPARE:
        bridge.send(Reported(StepReport(prepared_generation=desired.generation, lineage=0, applied_step=-1)))
    if desired.instruction is Instruction.RUN:
        page.phase(desired.generation, 0, Phase.COMPUTE)
        bridge.send(Running(desired.generation))
        report = CheckpointReport(
            job_uid=desired.job_uid, island=desired.island, generation=desired.generation, step=1, lineage=0
        )
        bridge.send(Checkpointed(report))
        return desired.generation
    return generation


def figures(step: int, generation: int) -> StepFigures:
    return StepFigures(
        step=step, generation=generation, lineage=0, loss=1.0, learning_rate=0.1, gradient_norm=1.0, tokens=8,
        cursor=step, sample_digest=step, step_s=0.02, vote_s=0.0, reduce_s=0.0, wall_s=time.time(),
    )  # fmt: skip


def store(report_fd: int, host: str) -> None:
    """Stands for the collective store where a test does not need one."""
    os.write(report_fd, b"1")
    os.close(report_fd)
    while True:
        threading.Event().wait()
