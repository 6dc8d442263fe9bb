"""Figures that went to an earlier leader: many of them must not keep the new one from leading.

Without it a fail-over could take longer the longer a job has run, or a damaged line end the filling of holes.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

from trainctl.controller.jobs.figure_recovery import read_figures
from trainctl.core.codec import to_wire
from unit.controller.controller_harness import create, figure, run, serving, spec

STEPS = 15_000
LONGEST_S = 5.0
"""Of computing without an answer; it was 15 s and more when each figure was looked for among all others."""


def record_figures(records: Path) -> None:
    """As an earlier leader's agents did."""
    records.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"event": "step"} | to_wire(figure(step))) + "\n" for step in range(1, STEPS))
    (records / "steps.jsonl").write_text("".join(lines))


def test_lines_that_are_none_are_left_out(tmp_path: Path) -> None:
    good = json.dumps({"event": "step"} | to_wire(figure(1))).encode()
    bad = (b"[" * 9_000, b"\xff\xfe", b"[]", b"null", b'{"event": []}', b'{"event": "step", "step": 1e999}')
    (tmp_path / "steps.jsonl").write_bytes(b"\n".join((*bad, good)))
    assert read_figures(str(tmp_path)) == [figure(1)]


def test_thousands_of_missing_figures_take_a_moment_and_nobody_waits_for_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(tmp_path) as running:
            client, agent = running.client, await running.agent()
            await client.call("CreateJob", create(spec() | {"spec": spec()["spec"] | {"train": {"steps": 10**6}}}))
            job = await client.until_phase("a", "RUNNING")
            record_figures(Path(job.status.records))
            begun_s = time.process_time()
            agent.report_figures(job.uid, STEPS)
            longest_s = 0.0
            while (await client.job("a")).status.tokens < STEPS * figure(1).tokens:
                longest_s, begun_s = max(longest_s, time.process_time() - begun_s), time.process_time()
                await asyncio.sleep(0.01)
            assert longest_s < LONGEST_S
            await agent.disconnect()

    run(main)
