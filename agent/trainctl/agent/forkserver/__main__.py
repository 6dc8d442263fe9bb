"""``python -m trainctl.agent.forkserver``: started by an agent, never by hand."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import socket
import sys
import time
import traceback

from trainctl.agent.forkserver import messages
from trainctl.agent.forkserver.server import ForkServer
from trainctl.core.system.processes import die_with_parent


def main() -> None:
    """Preloads, then serves until the agent leaves."""
    parser = argparse.ArgumentParser(prog="python -m trainctl.agent.forkserver")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of the packet socket to the agent")
    parser.add_argument("--parent", type=int, required=True, help="process id of the agent")
    parser.add_argument("--preload", default="", help="modules to import first, separated by commas")
    options = parser.parse_args()
    die_with_parent(options.parent)
    os.set_inheritable(options.channel, False)
    channel = socket.socket(fileno=options.channel)
    preload_s = preload(tuple(name for name in options.preload.split(",") if name))
    threads = len(os.listdir("/proc/self/task"))
    try:
        messages.send(channel, messages.Up(pid=os.getpid(), threads=threads, preload_s=preload_s))
    except BrokenPipeError:  # the agent has ended meanwhile, and said why
        return
    ForkServer(channel).serve()


def preload(modules: tuple[str, ...]) -> float:
    """Imports ``modules`` once for all children; returns the seconds it took.

    A module that cannot be imported is no reason to stop: the child that needs it will say so in its own log.
    """
    start_s = time.monotonic()
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"fork server: cannot preload {name}: {error}", file=sys.stderr)
            traceback.print_exc()
    gc.collect()
    gc.freeze()  # keeps the children's collections from touching, and so copying, the shared pages
    return time.monotonic() - start_s


if __name__ == "__main__":
    main()
