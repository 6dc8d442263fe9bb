"""``python -m trainctl.controller``: the command line, the log, and a clean way out."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trainctl.controller.access.limits import Limits, Rate
from trainctl.controller.logs import log_to_stderr
from trainctl.controller.run_dir import RunDir
from trainctl.controller.settings import Settings
from trainctl.controller.store.opening import StoreAddress
from trainctl.controller.tls_settings import TlsSettings
from trainctl.core.errors import TrainctlError, UsageError
from trainctl.core.loopback import is_loopback
from trainctl.core.texts import quoted
from trainctl.core.units import parse_duration_s

_log = logging.getLogger(__name__)
_MOST_CALLS = 1e6
NEW_OBJECTS = 50_000
"""Before the next search for cyclic garbage: a pass over a large job makes thousands, none of which is garbage."""
_OF_TLS = ("tls_name", "tls_cert", "agents_listen", "server_cert_ttl", "agent_cert_ttl")
"""Options that mean nothing without TLS."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a controller until SIGTERM or SIGINT; returns the exit code."""
    options = _parser().parse_args(arguments)
    # Looked at when gRPC is loaded: else everybody who comes without TLS leaves a line in the log, and none of JSON.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    log_to_stderr(options.log_level)
    gc.set_threshold(NEW_OBJECTS)
    try:
        asyncio.run(_serve(_settings(options)))
    except TrainctlError as error:
        _leave_word(options.dir, error)
        print(*error.lines, sep="\n", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        _leave_word(options.dir, error)
        raise
    return 0


def _leave_word(folder: Path, error: Exception) -> None:
    """For `trainctl doctor`, which may be asked when this output is long gone."""
    with contextlib.suppress(OSError):  # the folder may be what is wrong
        RunDir(folder.absolute()).write_end(error, time.time())


async def _serve(settings: Settings) -> None:
    from trainctl.controller.app import serve

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
    tls = _tls(options)
    if not options.insecure:
        _check_encrypted(host, store, tls)
    elif not is_loopback(host) and tls is None:
        _log.warning("--insecure: whoever is in the network of %s can read the tokens of all callers", host)
    return Settings(
        run_dir=RunDir(options.dir.absolute()),
        host=host,
        port=port,
        metrics_host="" if options.insecure or is_loopback(host) else "127.0.0.1",
        metrics_port=options.metrics_port,
        agents=options.agents,
        slots=options.slots,
        advertise=options.advertise,
        jobs=options.jobs.absolute() if options.jobs else None,
        store=store,
        accept_store=options.accept_store,
        lease_ttl_s=_duration_s("--lease-ttl", options.lease_ttl, least_s=1.0),
        orphan_timeout_s=_duration_s("--orphan-timeout", options.orphan_timeout, least_s=1.0),
        tls=tls,
        secrets=options.secrets.absolute() if options.secrets else None,
        limits=_limits(options),
        respawn_delay_s=_duration_s("--respawn-delay", options.respawn_delay),
    )


def _tls(options: argparse.Namespace) -> TlsSettings | None:
    """Raises: UsageError: what is said about TLS does not go together."""
    if (options.tls_cert is None) != (options.tls_key is None):
        raise UsageError("--tls-cert and --tls-key: expected both or none", hint="they are the two files of one pair")
    said = [flag for flag in _OF_TLS if getattr(options, flag) not in (None, [], "")]
    if not options.tls and options.tls_ca is None:
        if said:
            flag = f"--{said[0].replace('_', '-')}"
            raise UsageError(f"{flag}: expected with --tls only", hint="say --tls, too, or --tls-ca DIR")
        return None
    agents_host, agents_port = (
        _host_and_port(options.agents_listen, "--agents-listen") if options.agents_listen else ("", 0)
    )
    return TlsSettings(
        authority=options.tls_ca.absolute() if options.tls_ca else None,
        names=tuple(options.tls_name),
        certificate=options.tls_cert,
        key=options.tls_key,
        agents_host=agents_host,
        agents_port=agents_port,
        server_life_s=_duration_s("--server-cert-ttl", options.server_cert_ttl or "24h", least_s=1.0),
        agent_life_s=_duration_s("--agent-cert-ttl", options.agent_cert_ttl or "24h", least_s=1.0),
    )


def _check_encrypted(host: str, store: StoreAddress | None, tls: TlsSettings | None) -> None:
    """Raises: UsageError: tokens and state would cross a network for everybody to read."""
    if tls is None and not is_loopback(host):
        raise UsageError(
            f"--listen {host}: connections are not encrypted, so whoever is in that network can read the token",
            hint="say --tls; or listen on 127.0.0.1, or say --insecure if the network is your own",
        )
    if store is not None and (elsewhere := store.unencrypted()):
        raise UsageError(
            f"--store: the connection to {', '.join(elsewhere)} would not be encrypted",
            hint="name ca (and cert, key) in the store's address, or say --insecure if the network is your own",
        )


def _limits(options: argparse.Namespace) -> Limits:
    if not 1.0 <= options.calls_per_s <= _MOST_CALLS:
        raise UsageError(f"--calls-per-s: expected 1 to {_MOST_CALLS:g}, found {options.calls_per_s:g}")
    if options.max_streams < 1:
        raise UsageError(f"--max-streams: expected at least 1, found {options.max_streams}")
    return Limits(calls=Rate(options.calls_per_s, 2 * options.calls_per_s), streams=options.max_streams)


def _duration_s(flag: str, text: str, *, least_s: float = 0.0) -> float:
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error
    if seconds < least_s:
        raise UsageError(f"{flag}: expected at least {least_s:g}s, found {text}", hint=f"for example {flag} 10s")
    return seconds


def _host_and_port(listen: str, flag: str = "--listen") -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{flag}: expected HOST:PORT, found {quoted(listen)}", hint="for example 127.0.0.1:0")
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
        "--secrets", type=Path, default=None, metavar="DIR",
        help="folder that local agents read the values of spec.secretEnv from, a file each",
    )  # fmt: skip
    parser.add_argument(
        "--accept-store", action="store_true",
        help="act on a store that was restored from a backup, or whose installation has another token now",
    )  # fmt: skip
    parser.add_argument("--lease-ttl", default="10s", help="with etcd: how long a silent leader is waited for")
    parser.add_argument(
        "--orphan-timeout", default="10m",
        help="agents save and end their workers after so long without any controller; longer than you need to mend one",
    )  # fmt: skip
    parser.add_argument(
        "--insecure", action="store_true", help="listen beyond this machine, or reach an etcd there, without encryption"
    )
    _add_tls(parser)
    parser.add_argument("--advertise", default="", metavar="HOST:PORT", help="where others reach this controller")
    parser.add_argument("--metrics-port", type=int, default=0, help="port of /metrics; 0: any")
    parser.add_argument(
        "--calls-per-s", type=float, default=50.0, metavar="N",
        help="how often each caller may call in the long run, and twice as often at once (50); the own token ten times",
    )  # fmt: skip
    parser.add_argument(
        "--max-streams", type=int, default=64, metavar="N", help="streams that each caller may hold (64)"
    )
    parser.add_argument("--respawn-delay", default="200ms", help="pause before a dead agent is started again")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def _add_tls(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tls", action="store_true", help="encrypt all connections; agents come with certificates")
    parser.add_argument(
        "--tls-ca", type=Path, default=None, metavar="DIR",
        help="folder with ca.crt and ca.key, alike on all controllers of an installation (default: made in the folder)",
    )  # fmt: skip
    parser.add_argument(
        "--tls-name", action="append", default=[], metavar="HOST",
        help="host name or address that the controller's certificate is for, too; may be repeated",
    )  # fmt: skip
    parser.add_argument("--tls-cert", type=Path, default=None, metavar="FILE", help="certificate to show to people")
    parser.add_argument("--tls-key", type=Path, default=None, metavar="FILE", help="its private key")
    parser.add_argument(
        "--agents-listen", default="", metavar="HOST:PORT",
        help="with --tls, where agents' sessions are taken (default: the host of --listen, any port)",
    )  # fmt: skip
    parser.add_argument("--agent-cert-ttl", default="", help="life of an agent's certificate (24h)")
    parser.add_argument("--server-cert-ttl", default="", help="life of the controller's own certificate (24h)")
