"""The real worker's main function as a program for process worlds."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainctl.parallel import worker
from trainctl.parallel.bridge import WorkerBridge
from trainctl.parallel.progress_page import ProgressWriter


def run_worker(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    worker.run(bridge, page, options["folder"])


def run_on_another_corpus(bridge: WorkerBridge, page: ProgressWriter, options: Mapping[str, Any]) -> None:
    """Each worker is a node of its own; in slot 1 the folder ``corpus`` has one more record."""
    latest, folder = bridge.latest(), Path(options["folder"])
    node = folder / f"node-{latest.slot}"
    if latest.slot == 1:
        shutil.copytree(folder / "corpus", node / "corpus")
        with (node / "corpus" / "0.jsonl").open("a") as file:
            file.write('{"text": "one more"}\n')
        job: Any = latest.spec
        job["spec"]["train"]["data"]["uri"] = str(node / "corpus")
    worker.run(bridge, page, str(node))
