"""``python -m trainctl.controller``: the command line, the log, and a clean way out."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainctl.controller.app import Settings, controller
from trainctl.controller.logs import log_to_stderr
from trainctl.controller.run_dir import RunDir
from trainctl.core.errors import TrainctlError, UsageError
from trainctl.core.units import parse_duration_s

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a controller until SIGTERM or SIGINT; returns the exit code."""
    options = _parser().parse_args(arguments)
    log_to_stderr(options.log_level)
    try:
        asyncio.run(_serve(_settings(options)))
    except TrainctlError as error:
        print(f"error: {error} ({error.code})", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with controller(settings) as running:
        stopping = asyncio.create_task(stop.wait())
        endings: set[asyncio.Future[Any]] = {stopping, running.failed}
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if running.failed.done():
            running.failed.result()
        _log.info("controller stops; agents and workers run on")


def _settings(options: argparse.Namespace) -> Settings:
    host, port = _host_and_port(options.listen)
    for flag, least in (("agents", 0), ("slots", 1)):
        if getattr(options, flag) < least:
            raise UsageError(f"--{flag}: expected at least {least}, found {getattr(options, flag)}")
    try:
        respawn_delay_s = parse_duration_s(options.respawn_delay)
    except ValueError as error:
        raise UsageError(f"--respawn-delay: {error}") from error
    return Settings(
        run_dir=RunDir(options.dir.absolute()),
        host=host,
        port=port,
        metrics_port=options.metrics_port,
        agents=options.agents,
        slots=options.slots,
        store=options.store,
        respawn_delay_s=respawn_delay_s,
    )


def _host_and_port(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"--listen: expected HOST:PORT, found {listen!r}", hint="for example 127.0.0.1:0")
    return host, int(port)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trainctl-controller", description="Runs training jobs on this machine.")
    parser.add_argument("--dir", type=Path, required=True, help="folder of this installation")
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT", help="port 0: the former one, or any")
    parser.add_argument("--agents", type=int, default=0, help="local agents to keep running")
    parser.add_argument("--slots", type=int, default=1, help="workers that each agent takes")
    parser.add_argument("--store", type=Path, default=None, help="file of the state store (default: in the folder)")
    parser.add_argument("--metrics-port", type=int, default=0, help="port of /metrics; 0: any")
    parser.add_argument("--respawn-delay", default="200ms", help="pause before a dead agent is started again")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser
