"""The real worker's main function as a program for process worlds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainctl.parallel import worker
from trainctl.parallel.bridge import WorkerBridge
from trainctl.parallel.progress_page import ProgressWriter


def run_worker(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    worker.run(bridge, page, options["folder"])
