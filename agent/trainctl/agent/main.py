"""The command ``trainctl-agent``, also ``python -m trainctl.agent``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainctl.agent.forkserver import PRELOAD
from trainctl.core.errors import TrainctlError, UsageError
from trainctl.core.ids import NODE_NAME, is_node_name
from trainctl.core.loopback import beyond_loopback
from trainctl.core.system.memory_folder import memory_folder
from trainctl.core.texts import quoted

if TYPE_CHECKING:
    from trainctl.agent.app import AgentOptions

DEFAULT_ENTRY = "trainctl.parallel.worker:main"
DEFAULT_STORE_ENTRY = "trainctl.agent.forkserver.collective_store:main"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs an agent until it is ended; returns the exit code."""
    options = _parser().parse_args(arguments)
    # No child of ours is ever forked from this process, so gRPC need not prepare for that.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        _run(options)
    except TrainctlError as error:
        print(*error.lines, sep="\n", file=sys.stderr)
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    import asyncio

    from trainctl.agent.app import Agent, AgentOptions
    from trainctl.agent.dir_lock import lock_folder
    from trainctl.agent.security.trust import Given

    if not is_node_name(options.node):
        raise UsageError(
            f"--node: expected {NODE_NAME}; found {quoted(options.node)}", hint="for example --node gpu-17"
        )
    if options.failure_domain and not is_node_name(options.failure_domain):
        raise UsageError(
            f"--failure-domain: expected {NODE_NAME}; found {quoted(options.failure_domain)}",
            hint="for example --failure-domain rack-4",
        )
    controllers = tuple(options.controller.split(","))
    preload = tuple(name for name in options.preload.split(",") if name)
    agent_options = AgentOptions(
        controllers=controllers,
        node=options.node,
        slots=options.slots,
        first_local_rank=options.first_local_rank,
        secrets=options.secrets.absolute() if options.secrets else None,
        folder=options.dir.absolute(),
        memory=_memory(options.memory_dir, options.dir.absolute()),
        disk=_disk(options.snapshot_dir, options.dir.absolute()),
        failure_domain=options.failure_domain,
        token_file=options.token_file,
        given=Given(ca_file=options.ca_file, join_token_file=options.join_token_file),
        address=options.address,
        insecure=options.insecure,
        metrics_port=options.metrics_port,
        entry=options.worker_entry,
        store_entry=options.store_entry,
        preload=tuple(dict.fromkeys((*preload, options.worker_entry.partition(":")[0]))),
        fork_server=options.fork_server.absolute() if options.fork_server else None,
    )

    _check_encrypted(agent_options)

    async def run() -> None:
        await Agent(agent_options).run()

    lock = lock_folder(agent_options.folder)
    try:
        asyncio.run(run())
    finally:
        lock.release()


def _memory(told: str, folder: Path) -> Path | None:
    """Where snapshots are kept: nowhere if that is said, or if the system has no memory file system."""
    if told == "none":
        return None
    if told:
        return Path(told).absolute()
    default = memory_folder(folder)
    return default if default.parent.is_dir() else None


def _disk(told: str, folder: Path) -> Path | None:
    """Where snapshots are kept that shall outlive the machine; beside everything else of the agent if nobody says."""
    return None if told == "none" else Path(told).absolute() if told else folder / "snapshots"


def _check_encrypted(options: AgentOptions) -> None:
    """Raises: UsageError: the token would cross a network for everybody to read."""
    elsewhere = beyond_loopback(options.controllers)
    if options.certified or not elsewhere:
        return
    if not options.insecure:
        raise UsageError(
            f"--controller: the connection to {', '.join(elsewhere)} would not be encrypted",
            hint="join with --join-token-file FILE (a controller with --tls makes it), or say --insecure if the "
            "network is your own",
        )
    logging.getLogger(__name__).warning(
        "--insecure: whoever is in the network of %s can read this agent's token", ", ".join(elsewhere)
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trainctl-agent", description="Runs the workers of one node.")
    parser.add_argument("--controller", required=True, metavar="HOST:PORT,...", help="where the controllers listen")
    parser.add_argument("--node", required=True, help="name of this machine in the cluster")
    parser.add_argument("--slots", type=_positive, default=1, help="workers this machine takes (default 1)")
    parser.add_argument(
        "--first-local-rank",
        type=int,
        default=0,
        help="number of the first worker, where agents share a machine: it picks the accelerator (default 0)",
    )
    parser.add_argument(
        "--secrets", type=Path, metavar="DIR", help="folder of the values that jobs want by spec.secretEnv, a file each"
    )
    parser.add_argument("--dir", type=Path, required=True, help="folder for logs and caches; one agent a folder")
    parser.add_argument(
        "--memory-dir",
        default="",
        metavar="DIR",
        help="folder on a memory file system for snapshots of jobs that want them, or none (default: one in /dev/shm)",
    )
    parser.add_argument(
        "--snapshot-dir",
        default="",
        metavar="DIR",
        help="folder on a local disk for snapshots of jobs that want them there, or none (default: snapshots in --dir)",
    )
    parser.add_argument(
        "--failure-domain",
        default="",
        metavar="NAME",
        help="what this machine fails together with, such as its rack: copies of snapshots go elsewhere (default: only "
        "with itself)",
    )
    parser.add_argument("--token-file", type=Path, help="file with the bearer token")
    parser.add_argument(
        "--ca-file", type=Path, metavar="FILE", help="whom to trust (PEM) on the controllers' port (default: as joined)"
    )
    parser.add_argument(
        "--join-token-file", type=Path, metavar="FILE", help="file with a join token: how to become a node with TLS"
    )
    parser.add_argument("--insecure", action="store_true", help="reach controllers elsewhere without encryption")
    parser.add_argument("--address", default="127.0.0.1", help="where other nodes reach this one (default 127.0.0.1)")
    parser.add_argument("--metrics-port", type=int, default=0, help="port of /metrics (default: a free one)")
    parser.add_argument(
        "--fork-server",
        type=Path,
        metavar="SOCKET",
        help="where to get a fork server that agents of this machine share (default: one of its own)",
    )
    parser.add_argument("--worker-entry", default=DEFAULT_ENTRY, metavar="MODULE:FUNCTION", help=argparse.SUPPRESS)
    parser.add_argument("--store-entry", default=DEFAULT_STORE_ENTRY, metavar="MODULE:FUNCTION", help=argparse.SUPPRESS)
    parser.add_argument("--preload", default=",".join(PRELOAD), help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, found {number}")
    return number
