"""Starting a local installation: a detached controller that starts its agents, and the wait until all is there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainctl.cli.connection.client import Client
from trainctl.cli.connection.connecting import local_endpoint
from trainctl.cli.connection.installation import frozen_hint
from trainctl.cli.local import folder
from trainctl.cli.local.stop import CONTROLLER_GRACE_S, stop
from trainctl.core.errors import (
    ConflictError,
    PermissionDeniedError,
    PreconditionError,
    TrainctlError,
    UnavailableError,
    UsageError,
)
from trainctl.core.system.processes import end_child
from trainctl.core.system.run_folder import ControllerEnd, LocalController, read_controller, read_end
from trainctl.protos.v1.job_pb2 import GetVersionRequest, ListNodesRequest

DEADLINE_S = 90.0
LOG = "controller.log"
_POLL_S = 0.05
_CALL_S = 5.0
_ANSWER_S = 3.0
_QUIET_S = 1.0
_PROGRESS_EVERY_S = 5.0
CONNECTED = "READY"
_KINDS = (UsageError, ConflictError, PermissionDeniedError, PreconditionError, UnavailableError)
"""Of what a controller may say when it ends by itself: by their exit codes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalPlan:
    """What to start: so many agents with so many worker slots each; ``port`` 0 takes any that is free.

    ``secrets`` is the folder that the agents read the values of ``spec.secretEnv`` from.
    ``tls``: connections are encrypted, and the agents come with certificates.
    ``accept_store``: the store may be older than it was left, or of another token or authority.
    ``dir_option`` is what hints put behind ``trainctl local up``, see ``Context.dir_option``.
    """

    run_dir: Path
    agents: int
    slots: int
    port: int = 0
    secrets: Path | None = None
    tls: bool = False
    accept_store: bool = False
    dir_option: str = ""


def start(plan: LocalPlan, *, say: Callable[[str], None]) -> LocalController:
    """Starts the controller and returns when it answers and all its agents are connected.

    Raises:
        ConflictError: one runs already in this folder, or the port is taken.
        PermissionDeniedError: the folder or the port is not ours.
        UnavailableError: it did not come up; the message ends with its log. Nothing is left running.
    """
    _refuse_a_second(plan)
    _check_port(plan.port)
    folder.make(plan.run_dir)
    log_start = folder.log_size(plan.run_dir / LOG)
    with folder.locked(plan.run_dir):
        _refuse_a_second(plan)
        former_end = read_end(plan.run_dir)
        process = _spawn(plan)
        try:
            controller = _wait_until_up(plan, process, say=say, log_start=log_start, former_end=former_end)
        except BaseException:
            _undo(plan.run_dir, process)
            raise
        process.returncode = 0  # it is meant to outlive us, Popen must not complain that it does
        return controller


def controller_command(plan: LocalPlan) -> Sequence[str]:
    """The command line of the controller."""
    command = [sys.executable, "-m", "trainctl.controller", "--dir", str(plan.run_dir)]
    command += ["--agents", str(plan.agents), "--slots", str(plan.slots)]
    command += ["--secrets", str(plan.secrets)] if plan.secrets is not None else []
    command += ["--tls"] if plan.tls else []
    command += ["--accept-store"] if plan.accept_store else []
    return [*command, "--listen", f"127.0.0.1:{plan.port}"] if plan.port else command


def _refuse_a_second(plan: LocalPlan) -> None:
    run_dir, option = plan.run_dir, plan.dir_option
    running = read_controller(run_dir)
    if running is None or not running.alive:
        return
    where = f"in {run_dir}: process {running.process.pid} at {running.address}"
    if not _answers(run_dir):
        hint = frozen_hint(running.process.pid, option)
        raise ConflictError(f"a controller that does not answer runs already {where}", hint=hint)
    hint = f"`trainctl local status{option}` shows it, `trainctl local down{option}` stops it"
    raise ConflictError(f"a controller runs already {where}", hint=hint)


def _answers(run_dir: Path) -> bool:
    try:
        with Client(local_endpoint(run_dir), timeout_s=_ANSWER_S, retries=False) as client:
            client.call(client.stub.GetVersion, GetVersionRequest())
    except UnavailableError:
        return False
    return True


def _check_port(port: int) -> None:
    if not port:
        return
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As a server does: a port that only lingers in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise PermissionDeniedError(f"port {port} is not allowed", hint="choose a --port above 1023") from error
        except OSError as error:
            raise ConflictError(
                f"port {port} on 127.0.0.1 is taken by another program",
                hint="choose another --port, or leave it out for any that is free",
            ) from error


def _spawn(plan: LocalPlan) -> subprocess.Popen[bytes]:
    """Starts the controller in a session of its own: the terminal's Ctrl-C and its end do not reach it."""
    log = os.open(plan.run_dir / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            controller_command(plan),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=plan.run_dir,
        )
    finally:
        os.close(log)


def _wait_until_up(
    plan: LocalPlan,
    process: subprocess.Popen[bytes],
    *,
    say: Callable[[str], None],
    log_start: int,
    former_end: ControllerEnd | None,
) -> LocalController:
    begun_s = time.monotonic()
    say_at_s = begun_s + _QUIET_S
    missing = "the controller"
    while time.monotonic() < begun_s + DEADLINE_S:
        if process.poll() is not None:
            end = read_end(plan.run_dir)
            raise _ended(plan, process.returncode, end if end != former_end else None, log_start)
        controller = read_controller(plan.run_dir)
        if controller is not None and controller.process.pid == process.pid:
            missing = _missing(plan)
            if not missing:
                return controller
        if time.monotonic() >= say_at_s:
            say(f"waiting for {missing} ({time.monotonic() - begun_s:.0f} s)")
            say_at_s = time.monotonic() + _PROGRESS_EVERY_S
        time.sleep(_POLL_S)
    raise _failed(plan, f"{missing} did not come up within {DEADLINE_S:g} s{_said_by_agents(plan)}", log_start)


def _said_by_agents(plan: LocalPlan) -> str:
    """The last error in the log of each agent."""
    said: list[str] = []
    for log in sorted(plan.run_dir.glob("nodes/*/agent.log")):
        errors = [line for line in folder.log_tail(log) if line.startswith("error: ")]
        said += [f"\n  {log.parent.name}: {line}" for line in errors[-1:]]
    return "".join(said)


def _missing(plan: LocalPlan) -> str:
    """What is not there yet, in words; empty when everything is."""
    try:
        with Client(local_endpoint(plan.run_dir), timeout_s=_CALL_S) as client:
            client.call(client.stub.GetVersion, GetVersionRequest())
            nodes = client.call(client.stub.ListNodes, ListNodesRequest()).nodes
    except UnavailableError:
        return "the controller"
    connected = sum(node.state == CONNECTED for node in nodes)
    return "" if connected >= plan.agents else f"the agents: {connected} of {plan.agents} connected"


def _ended(plan: LocalPlan, exit_code: int, end: ControllerEnd | None, log_start: int) -> TrainctlError:
    """The error for a controller that ended by itself: its own words, if it left any."""
    kind = next((kind for kind in _KINDS if kind.exit_code == exit_code), None)
    if kind is None or end is None:
        message = f"the controller ended with exit code {exit_code} instead of coming up"
        return _failed(plan, message, log_start, kind or UnavailableError)
    error = kind(f"the controller did not start: {end.message}", hint=end.hint)
    error.code = end.code
    return error


def _failed(
    plan: LocalPlan, message: str, log_start: int, kind: type[TrainctlError] = UnavailableError
) -> TrainctlError:
    """The error for what went wrong without a word of explanation, with the end of the log."""
    log = plan.run_dir / LOG
    lines = [message, *(f"  {line}" for line in folder.log_tail(log, start=log_start))]
    return kind("\n".join(lines), hint=f"the whole log is {log}; nothing was left running")


def _undo(run_dir: Path, process: subprocess.Popen[bytes]) -> None:
    """Leaves nothing half-started behind."""
    end_child(process, CONTROLLER_GRACE_S)
    try:
        stop(run_dir)
    except TrainctlError:
        return  # the error being reported is the one that matters
