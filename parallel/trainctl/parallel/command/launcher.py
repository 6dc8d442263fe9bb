"""A worker that starts the user's command: the same protocol as every worker's, with nothing to recover.

The launcher keeps its process from generation to generation. In each it meets the others, starts the command with its
rank and size, and minds it: exit code 0 is success, anything else ends the launcher, too, and so is this worker's
failure. When a newer generation calls the command is stopped, and started again with what it is then.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from trainctl.core.records.generation import GenerationRecord
from trainctl.core.records.spec import TrainJob
from trainctl.core.records.step import Phase, StepReport
from trainctl.core.records.worker import RecoveryReport
from trainctl.core.timeouts import Timeouts
from trainctl.parallel.bridge import Finished, Ready, Recovered, Running
from trainctl.parallel.command.guard import Guard
from trainctl.parallel.command.meeting import Meeting
from trainctl.parallel.command.process import CommandProcess
from trainctl.parallel.command.program import Program, check_storage, program_of, search_path
from trainctl.parallel.command.pulse import Pulse
from trainctl.parallel.plan.command_env import (
    DEVICE_OF_AGENT_VARIABLE,
    HEARTBEAT_VARIABLE,
    VISIBLE_DEVICES_VARIABLE,
    torchrun_environment,
    visible_devices,
)
from trainctl.parallel.plan.command_errors import CommandError, CommandKilledError, CommandUnusableError
from trainctl.parallel.recovery.membership import rank_of
from trainctl.parallel.session.control import Control, ProgressPage
from trainctl.parallel.session.instructions import Instructions

_LOG = logging.getLogger("trainctl.command")
_POLL_S = 0.05
_ECHO_S = 0.5
"""How long a failure is kept back: when ranks fail after each other, only the first failed by itself."""
_PROMPT = frozenset({signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL})
"""Signals that no failure of another rank leads to."""
_GRACE_SHARE = 0.8
"""Of the seconds that this worker has to stop, so many are the command's."""


def launch(control: Control, page: ProgressPage, job: TrainJob, *, node_dir: Path, threads: int) -> None:
    """Runs the job's command in each generation that this worker is a member of, until it is told to stop.

    Args:
        control: the agent's bridge.
        page: the progress page.
        job: with ``spec.command``.
        node_dir: folder of the node.
        threads: intra-op threads of the command, unless its environment says otherwise.

    Raises:
        CommandUnusableError: the command cannot be started here.
        CommandError: it failed.
        SystemExit: this process got SIGTERM; the command had its grace.
    """
    launcher = _Launcher(control, page, job, node_dir=node_dir, threads=threads)
    signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        launcher.run()
    finally:
        launcher.close()


def _on_sigterm(number: int, frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


class _Launcher:
    def __init__(self, control: Control, page: ProgressPage, job: TrainJob, *, node_dir: Path, threads: int) -> None:
        self._control = control
        self._page = page
        self._job = job
        self._threads = threads
        self._instructions = Instructions(control, touch=page.touch)
        self._desired = desired = self._instructions.latest
        self._timeouts = Timeouts.for_job(job)
        self._own_folder = node_dir / "commands" / desired.job_uid
        check_storage(desired.workdir)
        self._program = self._find_program()
        heartbeat = self._own_folder / f"heartbeat-{desired.slot}-{desired.incarnation}"
        self._heartbeat = heartbeat
        self._pulse = Pulse(job.spec.launch.hang, heartbeat)
        self._guard = Guard()

    def run(self) -> None:
        """Serves one generation after the other."""
        self._page.phase(0, 0, Phase.READY)
        self._control.send(Ready())
        while (record := self._instructions.next_record(_nothing_held)) is not None:
            self._serve(record)

    def close(self) -> None:
        """Leaves nothing behind but what the command wrote."""
        self._pulse.close()
        for folder in (self._own_folder / "work", self._own_folder):
            with contextlib.suppress(OSError):  # not empty: it is the command's
                folder.rmdir()
        self._guard.close()

    def _find_program(self) -> Program:
        return program_of(self._job.spec, own_folder=self._own_folder / "work", env=os.environ)

    def _serve(self, record: GenerationRecord) -> None:
        """Starts the command as a member of ``record`` and minds it until a newer instruction calls."""
        rank = rank_of(record, slot=self._desired.slot, incarnation=self._desired.incarnation)
        self._page.phase(record.generation, 0, Phase.REBUILD)
        device = int(os.environ.get(DEVICE_OF_AGENT_VARIABLE, "0"))
        began_s = time.monotonic()
        with Meeting(record, rank, device=device, timeout_s=self._timeouts.collective_s) as meeting:
            while not meeting.done and not self._called_away():
                self._idle()
            if meeting.error:
                _LOG.warning("generation %d: the ranks did not meet: %s", record.generation, meeting.error)
                self._page.phase(record.generation, 0, Phase.INTERRUPTED)
            elif meeting.done and not self._called_away():
                self._report(record, rank, met_s=time.monotonic() - began_s)
                self._run(record, rank, meeting)

    def _run(self, record: GenerationRecord, rank: int, meeting: Meeting) -> None:
        env = self._environment(record, rank, meeting)
        self._program = self._find_program()
        self._pulse.reset()
        process = CommandProcess(self._program, env, self._guard, on_output=self._pulse.on_output)
        try:
            self._page.phase(record.generation, 0, Phase.COMMAND)
            self._control.send(Running(record.generation))
            _LOG.info("generation %d: rank %d of %d runs as process %d: %s", record.generation, rank,
                      record.world_size, process.pid, " ".join(self._program.arguments))  # fmt: skip
            self._mind(process, record.generation)
        finally:
            process.stop(_GRACE_SHARE * self._instructions.latest.grace_s, self._page.touch)

    def _report(self, record: GenerationRecord, rank: int, *, met_s: float) -> None:
        report = RecoveryReport(
            job_uid=record.job_uid,
            island=record.island,
            generation=record.generation,
            global_rank=rank,
            slot=self._desired.slot,
            rebuild_s=met_s,
        )
        self._control.send(Recovered(report))

    def _mind(self, process: CommandProcess, generation: int) -> None:
        finished = False
        while not self._called_away():
            code = process.exit_code()
            if code and not self._is_echo(code):
                raise _failure(code)
            if code == 0 and not finished:
                finished = True
                self._page.phase(generation, 0, Phase.FINISHED)
                self._control.send(Finished(0))
            if finished or self._pulse.heard():
                self._page.touch()
            self._control.wait_newer(self._control.version, _POLL_S)

    def _is_echo(self, code: int) -> bool:
        """Whether another rank failed before this one: then a newer generation calls within a moment."""
        if -code in _PROMPT:
            return False
        self._instructions.wait_for_end(_ECHO_S)
        return self._called_away()

    def _called_away(self) -> bool:
        return self._instructions.stopping or self._instructions.aborted()

    def _idle(self) -> None:
        self._page.touch()
        self._control.wait_newer(self._control.version, _POLL_S)

    def _environment(self, record: GenerationRecord, rank: int, meeting: Meeting) -> dict[str, str]:
        """The worker's own, which holds ``spec.env`` already, and what torchrun would add."""
        spec = self._job.spec
        env = dict(os.environ)
        if "OPENBLAS_NUM_THREADS" not in spec.env:
            env.pop("OPENBLAS_NUM_THREADS", None)  # the fork server's, for its own safety
        env["PATH"] = search_path(env)
        env.setdefault("OMP_NUM_THREADS", str(self._threads))
        env.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1")
        env.setdefault("PYTHONUNBUFFERED", "1")  # a line shall be seen when it is printed
        if VISIBLE_DEVICES_VARIABLE not in spec.env:
            env[VISIBLE_DEVICES_VARIABLE] = (
                _devices(env, meeting.devices) if spec.resources.accelerators_per_node else ""
            )
        env |= torchrun_environment(
            record,
            rank,
            master=meeting.master,
            run_id=self._desired.job_uid,
            max_restarts=spec.recovery.max_restarts.user,
        )
        return env | {
            "TRAINCTL_JOB": self._desired.job_name,
            "TRAINCTL_WORKDIR": self._desired.workdir,
            HEARTBEAT_VARIABLE: str(self._heartbeat),
        }


def _nothing_held(generation: int) -> StepReport:
    """The answer to PREPARE: what the command knows is its own affair."""
    return StepReport(prepared_generation=generation, lineage=0, applied_step=-1)


def _devices(env: Mapping[str, str], numbers: tuple[int, ...]) -> str:
    inherited = env.get(VISIBLE_DEVICES_VARIABLE)
    try:
        return visible_devices(numbers, inherited)
    except IndexError:
        raise CommandUnusableError(
            f"expected a CUDA device for each of the workers {', '.join(map(str, numbers))} of this node, "
            f"found {VISIBLE_DEVICES_VARIABLE}={inherited}",
        ) from None


def _failure(code: int) -> CommandError:
    if code < 0:
        return CommandKilledError(f"its command was ended by {_name(-code)}")
    return CommandError(f"its command ended with exit code {code}")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
