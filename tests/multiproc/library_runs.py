"""Processes that use the library of checkpoints without a controller."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Collection
from pathlib import Path

from multiproc.library_ranks import Body, run_rank
from waiting import PATIENCE_S


def run(body: Body, folder: Path, size: int, number: int = 0, *, killed: Collection[int] = ()) -> None:
    """``body`` in so many processes, all of which have to come to their end, but for those that are killed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "multiproc.library_ranks"])
    errors = context.SimpleQueue()
    ranks = [context.Process(target=run_rank, args=(body, folder, r, size, number, errors)) for r in range(size)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(PATIENCE_S)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
    said = [] if errors.empty() else [errors.get()]
    expected = [-signal.SIGKILL if rank in killed else 0 for rank in range(size)]
    assert codes == expected, "\n".join([str(codes), *said])
