"""Training programs of process worlds whose storage is another one: damaged for one rank, or reached over HTTP."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from multiproc import sharded_toy
from multiproc.toy import train
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.port import RangeRead
from trainctl.parallel.bridge import WorkerBridge
from trainctl.parallel.progress_page import ProgressWriter


def train_where_one_reads_badly(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    """As ``toy.train``; to ``bad_slot`` the last tensor bytes of ``bad_step`` look as if a bit had flipped."""
    if bridge.latest().slot == options["bad_slot"]:
        plainly = LocalStorage.read_ranges

        def flipped(self: LocalStorage, path: str, ranges: Sequence[RangeRead]) -> None:
            plainly(self, path, ranges)
            if options["bad_step"] in self.uri and ranges[-1].offset:
                ranges[-1].into[-1] ^= 1

        LocalStorage.read_ranges = flipped  # type: ignore[method-assign]
    train(bridge, page, options)


def train_on_s3(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    """As ``toy.train``, with the environment that leads to the store."""
    os.environ.update(options["env"])
    train(bridge, page, options)


def train_shards_on_s3(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    """As ``sharded_toy.train``, with that environment."""
    os.environ.update(options["env"])
    sharded_toy.train(bridge, page, options)
