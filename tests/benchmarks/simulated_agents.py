"""Agents without workers, many in one process: the connection is a real agent's, each has a socket of its own.

``python simulated_agents.py HOST:PORT TOKEN_FILE FIRST COUNT`` registers ``sim-FIRST`` and so on, and beats until it is
terminated.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from trainctl.agent.conversation import Node
from trainctl.agent.link import ControllerLink
from trainctl.agent.metrics import AgentMetrics
from trainctl.agent.outbox import FiguresOutbox, ReportsOutbox
from trainctl.agent.security.calling import PlainCalling
from trainctl.protos.v1 import agent_pb2
from trainctl.protos.version import WIRE_VERSION, package_version

START_WITHIN_S = 2.0


async def _nothing_to_end() -> None:
    return


def _link(target: str, token: str, number: int) -> ControllerLink:
    registration = agent_pb2.RegisterRequest(
        node=f"sim-{number}",
        address="127.0.0.1",
        pid=os.getpid(),
        slots=1,
        version=package_version(),
        wire_version=WIRE_VERSION,
        device="cpu",
    )
    node = Node(
        observe=lambda: (),
        store_address=lambda: "127.0.0.1:1",
        set_desired=lambda _: None,
        forget_jobs=lambda _: None,
    )
    return ControllerLink(
        targets=(target,),
        calling=PlainCalling(lambda: token),
        registration=registration,
        node=node,
        forget_all=_nothing_to_end,
        figures=FiguresOutbox(),
        reports=ReportsOutbox(),
        metrics=AgentMetrics(),
    )


async def _live(link: ControllerLink) -> None:
    await asyncio.sleep(random.uniform(0, START_WITHIN_S))  # nobody starts a cluster's agents in the same millisecond
    await link.run()


async def _main(target: str, token: str, numbers: range) -> None:
    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(_live(_link(target, token, number)))


if __name__ == "__main__":
    address, token_file, begin, count = sys.argv[1:]
    secret = Path(token_file).read_text().strip()
    asyncio.run(_main(address, secret, range(int(begin), int(begin) + int(count))))
