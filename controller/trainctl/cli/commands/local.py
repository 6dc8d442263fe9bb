"""``trainctl local up|down|status``."""

from __future__ import annotations

import time
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.commands.cancel import confirm
from trainctl.cli.config.settings import resolve
from trainctl.cli.connection.connecting import named_installation
from trainctl.cli.connection.installation import frozen_hint, remedy
from trainctl.cli.context import Context
from trainctl.cli.local import folder
from trainctl.cli.local.start import LocalPlan, start
from trainctl.cli.local.status import data, lines, look, state
from trainctl.cli.local.stop import stop
from trainctl.cli.output import emit
from trainctl.core.errors import UsageError
from trainctl.core.system.run_folder import LocalController, read_agents
from trainctl.core.units import format_count

_MAX_AGENTS = 64
_MAX_SLOTS = 64


def _run_dir(context: Context) -> Path:
    chosen = context.options.dir
    if chosen == "":
        raise UsageError("--dir: expected a folder, found an empty text", hint="is the variable in it set?")
    return Path(chosen).expanduser().absolute() if chosen else context.run_dir


def _check_range(flag: str, value: int, low: int, high: int, example: int) -> int:
    if not low <= value <= high:
        raise UsageError(f"{flag}: expected {low} to {high}, found {value}", hint=f"for example {flag} {example}")
    return value


def _secrets(text: str | None) -> Path | None:
    if text is None:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_dir():
        raise UsageError(f"--secrets: expected a folder, found {path}", hint="it holds a file for each secret")
    return path


def up(context: Context) -> int:
    """Starts a controller and its agents; a stopped installation goes on with its jobs."""
    options = context.options
    plan = LocalPlan(
        run_dir=_run_dir(context),
        agents=_check_range("--agents", options.agents, 0, _MAX_AGENTS, 2),
        slots=_check_range("--slots", options.slots, 1, _MAX_SLOTS, 2),
        port=_check_range("--port", options.port, 0, 65535, 7070),
        secrets=_secrets(options.secrets),
        tls=options.tls,
        accept_store=options.accept_store,
        dir_option=context.dir_option(_run_dir(context)),
    )
    context.on_interrupt = ("interrupted: what was started was stopped again",)
    running = sum(agent.alive for agent in read_agents(plan.run_dir))
    begun_s = time.monotonic()
    controller = start(plan, say=context.console.say)
    took_s = time.monotonic() - begun_s
    agents = format_count(plan.agents, "agent")
    slots = f" of {format_count(plan.slots, 'slot')} each" if plan.agents else ""
    context.console.data([f"controller at {controller.address} with {agents}{slots} ({took_s:.1f} s)"])
    if running:
        context.console.say(f"{format_count(running, 'running agent')} adopted: their workers trained on")
    context.console.say(_next_steps(context, plan.run_dir, controller))
    return exit_codes.OK


def _next_steps(context: Context, run_dir: Path, controller: LocalController) -> list[str]:
    if run_dir == context.run_dir:
        return ["next: trainctl submit -f job.yaml --watch"]
    return [
        "to use it from this shell:",
        f"  export TRAINCTL_ADDRESS={controller.address} TRAINCTL_TOKEN_FILE={run_dir / 'token'}",
    ]


def down(context: Context) -> int:
    """Stops everything in the folder; safe to repeat."""
    run_dir, purge = _run_dir(context), context.options.purge
    if not folder.is_installation(run_dir) and not (run_dir / folder.LOCK_NAME).exists():
        if purge and run_dir.exists():
            folder.purge(run_dir)  # refuses, and says why
        context.console.say(f"nothing was ever started in {run_dir}")
        return exit_codes.OK
    question = f"delete all jobs, logs and checkpoints in {run_dir}?"
    if purge and not context.options.yes and not confirm(question):
        context.console.say("nothing was stopped or deleted")
        return exit_codes.FAILURE
    where = context.dir_option(run_dir)
    context.on_interrupt = (f"interrupted: some of it may still run; `trainctl local status{where}` shows it",)
    with folder.locked(run_dir):
        stopped = stop(run_dir)
        if purge:
            folder.purge(run_dir)
    agents = format_count(len(stopped.agents), "agent")
    was = [*(["the controller"] if stopped.controller else []), *([agents] if stopped.agents else [])]
    forced = f" ({stopped.killed} had to be killed)" if stopped.killed else ""
    context.console.data([f"stopped {' and '.join(was)}{forced}" if was else f"nothing was running in {run_dir}"])
    context.console.say(
        f"deleted what it kept in {run_dir}" if purge else f"jobs and checkpoints are kept in {run_dir}"
    )
    return exit_codes.OK


def status(context: Context) -> int:
    """Shows what runs in the folder; exits with 7 when the controller does not."""
    named = None if context.options.dir is not None else named_installation(context, resolve(context))
    found = look(named[0] if named is not None else _run_dir(context))
    style = context.console.style()
    emit(
        context,
        data(found),
        table=lambda: lines(found, now_s=time.time(), style=style),
        names=[agent.node for agent in found.agents],
    )
    if found.answers:
        return exit_codes.OK
    where = context.dir_option(found.run_dir)
    what = f"start it with: trainctl local up{where}"
    if found.controller is not None and found.controller.alive:
        what = frozen_hint(found.controller.process.pid, where)
    elif found.end is not None:
        what = f"{found.end}; {remedy(found.end, where)}"
    context.console.say(f"the controller is {state(found)}; {what}")
    return exit_codes.UNAVAILABLE
