"""``python -m trainctl.agent.forkserver``: started by an agent or a local controller, never by hand."""

from __future__ import annotations

import argparse
import os
import socket

from trainctl.agent.forkserver import PRELOAD
from trainctl.agent.forkserver.preloading import preload
from trainctl.agent.forkserver.server import serve
from trainctl.agent.forkserver.shared import SharedForkServer
from trainctl.core.system.processes import die_with_parent


def main() -> None:
    """Preloads, then serves until the agent leaves, or until the controller that shares it out ends."""
    parser = argparse.ArgumentParser(prog="python -m trainctl.agent.forkserver")
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--channel", type=int, help="descriptor of the packet socket to the agent")
    whose.add_argument("--listener", type=int, help="descriptor of the socket where agents come for one of their own")
    parser.add_argument("--parent", type=int, required=True, help="process id of the agent or controller")
    parser.add_argument("--preload", default=",".join(PRELOAD), help="modules to import first, separated by commas")
    options = parser.parse_args()
    die_with_parent(options.parent)
    modules = tuple(name for name in options.preload.split(",") if name)
    descriptor = options.channel if options.listener is None else options.listener
    os.set_inheritable(descriptor, False)
    end = socket.socket(fileno=descriptor)
    preloaded = preload(modules)
    if options.listener is not None:
        SharedForkServer(end, preloaded).serve()
    serve(end, preloaded)


if __name__ == "__main__":
    main()
