"""torchft's lighthouse and so many members, in one process; every member asks for a quorum at once.

Arguments: members, rounds. Prints a JSON list: seconds until the last member had its answer, for each round.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from torchft.coordination import LighthouseClient, LighthouseServer

PATIENCE = timedelta(seconds=120)


def rounds(members: int, count: int) -> Iterator[float]:
    server = LighthouseServer(bind="127.0.0.1:0", min_replicas=members, quorum_tick_ms=10, join_timeout_ms=60000)
    clients = [LighthouseClient(server.address(), connect_timeout=PATIENCE) for _ in range(members)]
    with ThreadPoolExecutor(members) as pool:
        for number in range(count):
            began_s = time.monotonic()
            asked = [
                pool.submit(client.quorum, f"member-{index}", PATIENCE, step=number, world_size=1)
                for index, client in enumerate(clients)
            ]
            for answer in asked:
                answer.result()
            yield time.monotonic() - began_s
    server.shutdown()


if __name__ == "__main__":
    print(json.dumps(list(rounds(int(sys.argv[1]), int(sys.argv[2])))))
