"""``python -m trainctl.controller``: the command line, the log, and a clean way out."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from trainctl.controller.app import serve
from trainctl.controller.logs import log_to_stderr
from trainctl.controller.run_dir import RunDir
from trainctl.controller.settings import Settings
from trainctl.controller.store.opening import StoreAddress
from trainctl.core.errors import TrainctlError, UsageError
from trainctl.core.loopback import is_loopback
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
    await serve(settings, stop)


def _settings(options: argparse.Namespace) -> Settings:
    host, port = _host_and_port(options.listen)
    for flag, least in (("agents", 0), ("slots", 1)):
        if getattr(options, flag) < least:
            raise UsageError(f"--{flag}: expected at least {least}, found {getattr(options, flag)}")
    store = StoreAddress.parse(options.store) if options.store else None
    if not options.insecure:
        _check_encrypted(host, store)
    return Settings(
        run_dir=RunDir(options.dir.absolute()),
        host=host,
        port=port,
        metrics_port=options.metrics_port,
        agents=options.agents,
        slots=options.slots,
        advertise=options.advertise,
        jobs=options.jobs.absolute() if options.jobs else None,
        store=store,
        accept_store=options.accept_store,
        lease_ttl_s=_duration_s("--lease-ttl", options.lease_ttl, least_s=1.0),
        respawn_delay_s=_duration_s("--respawn-delay", options.respawn_delay),
    )


def _check_encrypted(host: str, store: StoreAddress | None) -> None:
    """Raises: UsageError: tokens and state would cross a network for everybody to read."""
    if not is_loopback(host):
        raise UsageError(
            f"--listen {host}: connections are not encrypted, so whoever is in that network can read the token",
            hint="listen on 127.0.0.1, or say --insecure if the network is your own",
        )
    if store is not None and (elsewhere := store.unencrypted()):
        raise UsageError(
            f"--store: the connection to {', '.join(elsewhere)} would not be encrypted",
            hint="name ca (and cert, key) in the store's address, or say --insecure if the network is your own",
        )


def _duration_s(flag: str, text: str, *, least_s: float = 0.0) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error
    if seconds < least_s:
        raise UsageError(f"{flag}: expected at least {least_s:g}s, found {text}", hint=f"for example {flag} 10s")
    return seconds


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
    parser.add_argument(
        "--store", default="", metavar="ADDRESS",
        help="the state store: file:PATH (default: a file in the folder), or etcd://HOST:PORT,HOST:PORT/PREFIX?ca=...",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=Path, default=None,
        help="folder of the jobs' work folders, that all controllers and agents see (default: in the folder)",
    )  # fmt: skip
    parser.add_argument(
        "--accept-store", action="store_true",
        help="act on a store that was restored from a backup, or whose installation has another token now",
    )  # fmt: skip
    parser.add_argument("--lease-ttl", default="10s", help="with etcd: how long a silent leader is waited for")
    parser.add_argument(
        "--insecure", action="store_true", help="listen beyond this machine, or reach an etcd there, without encryption"
    )
    parser.add_argument("--advertise", default="", metavar="HOST:PORT", help="where others reach this controller")
    parser.add_argument("--metrics-port", type=int, default=0, help="port of /metrics; 0: any")
    parser.add_argument("--respawn-delay", default="200ms", help="pause before a dead agent is started again")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser
