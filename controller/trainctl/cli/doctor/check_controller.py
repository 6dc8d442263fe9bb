"""Checks of the controller, its agents, and of one job. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.cli.doctor.facts import Controller, Facts
from trainctl.cli.doctor.finding import Finding, fail, ok, warn
from trainctl.core.units import format_count, format_duration

SKEW_WARN_S = 2.0
SKEW_FAIL_S = 60.0
SLOW_S = 1.0


def check_controller(facts: Facts) -> Iterator[Finding]:
    """Whether it answers, in our language."""
    controller = facts.controller
    if controller.frozen:
        yield fail(
            "controller",
            f"the process {controller.local_pid} of the controller at {controller.address} is stopped",
            f"kill -CONT {controller.local_pid} lets it go on; jobs train meanwhile",
        )
    elif controller.error_code == "VERSION_MISMATCH":
        yield fail("controller", controller.error, f"install the same version on both sides; {controller.remedy}")
    elif controller.error:
        yield fail("controller", controller.error, controller.remedy or "trainctl local up")
    elif controller.wire_version != facts.wire_version:
        yield fail(
            "controller",
            f"it speaks wire version {controller.wire_version}, this command {facts.wire_version}",
            "install the same version on both sides",
        )
    elif controller.doubt:
        yield fail(
            "controller",
            f"it acts on nothing: {controller.doubt}",
            f"restore a newer copy of the store, or start the controller once with --accept-store{_here(controller)}: "
            "workers that the store does not know of are then ended",
        )
    elif controller.version != facts.software.own_version:
        yield warn(
            "controller",
            f"it has version {controller.version}, this command {facts.software.own_version}",
            "install the same version on both sides",
        )
    elif controller.round_trip_s > SLOW_S:
        yield warn(
            "controller",
            f"{controller.address} took {controller.round_trip_s:.1f} s to answer",
            "is its machine overloaded, or its disk slow?",
        )
    else:
        yield ok(
            "controller",
            f"{controller.address} answers in {1000 * controller.round_trip_s:.0f} ms, version {controller.version}",
        )


def _here(controller: Controller) -> str:
    """How a controller of this machine is started anew while its workers go on."""
    pid = controller.local_pid
    return f" (kill {pid}, and when it has ended trainctl local up --accept-store)" if pid else ""


def check_clock(facts: Facts) -> Iterator[Finding]:
    """Clock skew against the controller: --since and ages go wrong by it; decisions are made on its clock alone."""
    skew_s = facts.controller.skew_s
    if facts.controller.error or skew_s is None:
        return
    text = f"the controller's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's"
    remedy = "let NTP set both clocks: timedatectl set-ntp true"
    if abs(skew_s) > SKEW_FAIL_S:
        yield fail("clock", text, remedy)
    elif abs(skew_s) > SKEW_WARN_S:
        yield warn("clock", text, remedy)
    else:
        yield ok("clock", "the same as the controller's")


def check_agents(facts: Facts) -> Iterator[Finding]:
    """Whether every agent that ever registered is heard."""
    controller = facts.controller
    if controller.error:
        return
    if not controller.nodes:
        yield warn(
            "agents", "no agent has registered: no job can start", "start one: trainctl local up, or trainctl-agent"
        )
        return
    silent = [node for node in controller.nodes if node.state in ("UNREACHABLE", "EXITED")]
    other = [node for node in controller.nodes if node.version not in ("", controller.version) and node not in silent]
    if silent:
        names = ", ".join(f"{node.name} ({node.state.lower()}, {format_duration(node.silent_s)})" for node in silent)
        nobody = len(silent) == len(controller.nodes)
        judge = fail if nobody else warn
        unheard = nobody and all(node.state == "UNREACHABLE" for node in silent)
        cut_off = "either all are down or the controller is cut off from them (it takes none for lost): " * unheard
        yield judge(
            "agents",
            f"silent: {len(silent)} of {len(controller.nodes)}: {names}",
            f"{cut_off}look into agent.log on these nodes; `trainctl local status` shows the processes of this one",
        )
    elif other:
        names = ", ".join(f"{node.name} ({node.version})" for node in other)
        yield warn(
            "agents", f"another version than the controller ({controller.version}): {names}", "update these machines"
        )
    else:
        yield ok("agents", f"heard: {len(controller.nodes)} of {len(controller.nodes)}")


def check_job(facts: Facts) -> Iterator[Finding]:
    """The job that was asked for: whether it exists, and waits for room."""
    job = facts.job
    if job is None:
        return
    if job.error:
        yield fail("job", job.error, "`trainctl get jobs` lists all jobs")
        return
    text = f"{job.name} is {job.phase}" + (f" ({job.reason})" if job.reason else "")
    text += f", recovered {format_count(job.recoveries, 'time')}" if job.recoveries else ""
    if job.phase in ("FAILED", "REJECTED"):
        yield fail(
            "job", text, f"`trainctl explain {job.name}` says why; `trainctl logs {job.name}` shows its last lines"
        )
    elif job.phase == "QUEUED" and job.free_slots < job.wanted_slots:
        yield warn(
            "job",
            f"{text}: it needs {format_count(job.wanted_slots, 'free slot')}, ready nodes have {job.free_slots}",
            "start more agents, end another job, or lower spec.nodes.min",
        )
    elif job.phase in ("RECOVERING", "FAILING", "QUEUED"):
        yield warn("job", text, f"`trainctl explain {job.name}` says what it waits for")
    else:
        yield ok("job", text)


def check_timeouts(facts: Facts) -> Iterator[Finding]:
    """Shows the time-outs: who draws which conclusion after how long."""
    shown = ", ".join(f"{name.removesuffix('_s').replace('_', ' ')} {_short(s)}" for name, s in facts.timeouts.items())
    yield ok("time-outs", f"profile {facts.profile}: {shown}")


def _short(seconds: float) -> str:
    return f"{seconds:g}s" if seconds < 60 else format_duration(seconds).replace("m00s", "m")
