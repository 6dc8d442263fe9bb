"""Stands in for ``python -m trainctl.controller``: a fake API, and agents that only wait to be ended."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from trainctl.core.system.files import write_atomically
from trainctl.core.system.processes import identify
from trainctl.core.system.run_folder import ControllerEnd, write_end
from trainctl.protos.v1.job_pb2 import NodeStatus
from unit.cli.fake_controller import TOKEN, FakeController

AGENT = """
import signal
{stubborn}
signal.pthread_sigmask(signal.SIG_UNBLOCK, {{signal.SIGTERM}})
print("up", flush=True)
while True:
    signal.pause()
"""


def start_agent(run_dir: Path, node: str, *, stubborn: bool) -> int:
    how = "signal.signal(signal.SIGTERM, signal.SIG_IGN)" if stubborn else "pass"
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT.format(stubborn=how)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert agent.stdout is not None
    agent.stdout.readline()
    identity = identify(agent.pid)
    assert identity is not None
    folder = run_dir / "nodes" / node
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.json").write_text(json.dumps({"pid": agent.pid, "start_ticks": identity.start_ticks, "slots": 2}))
    return agent.pid


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--agents", type=int)
    parser.add_argument("--slots", type=int)
    parser.add_argument("--listen", default="127.0.0.1:0")
    options = parser.parse_args()
    mode = os.environ.get("FAKE_MODE", "")
    if mode == "crash":
        sys.exit("the store is damaged")
    if mode == "port":
        print("the port is taken", flush=True)
        sys.exit(4)
    if mode == "word":
        print("error: nobody reads this\nhint: nor this", flush=True)
        write_end(
            options.dir, ControllerEnd(at_s=7.0, code="STORE_OLD", message="it is old:\nvery", hint="take another")
        )
        sys.exit(6)
    if mode == "wordless":
        print("usage: nothing of this life but these", flush=True)
        sys.exit(6)
    api = FakeController()
    api.port = int(options.listen.rpartition(":")[2])
    for index in range(options.agents):
        node = f"node-{index}"
        pid = start_agent(options.dir, node, stubborn=mode == "stubborn")
        state = "UNREACHABLE" if mode == "agentless" else "READY"
        if mode == "agentless":
            (options.dir / "nodes" / node / "agent.log").write_text("error: first\nerror: expected TLS\nhint: h\n")
        api.nodes.append(NodeStatus(node=node, state=state, pid=pid, slots=options.slots))
    api.add_job("kept")
    api.start()
    (options.dir / "token").write_text(TOKEN)
    identity = identify(os.getpid())
    assert identity is not None
    facts = {"pid": identity.pid, "start_ticks": identity.start_ticks, "address": api.address, "started_s": time.time()}
    write_atomically(options.dir / "controller.json", json.dumps(facts).encode())
    signal.sigwait({signal.SIGTERM})
    os._exit(0)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    main()
