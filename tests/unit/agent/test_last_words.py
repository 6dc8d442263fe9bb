"""An exit is told as soon as its last words are read; whoever keeps a pipe open delays it once, not once a pipe.

Without it the reason of a crash could come late or never.
"""

from __future__ import annotations

import asyncio

from simulation.virtual_loop import run_virtually
from trainctl.agent.worker import last_words


def test_pipes_that_somebody_else_keeps_open_are_waited_for_together() -> None:
    async def waited_s(*ended: bool) -> float:
        ends = [asyncio.Event() for _ in ended]
        for end, is_over in zip(ends, ended, strict=True):
            if is_over:
                end.set()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await last_words(*ends)
        return round(loop.time() - began_s, 6)

    assert run_virtually(lambda: waited_s(True, True)) == 0.0
    assert run_virtually(lambda: waited_s(True, False)) == 0.2
    assert run_virtually(lambda: waited_s(False, False)) == 0.2
