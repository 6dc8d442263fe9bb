"""``torch.compile`` where no compiler is; what needs one is in ``tests/system``.

Without it a job could fail for want of a compiler without saying so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_without_a_compiler_it_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import torch; from pathlib import Path\n"
        "from trainctl.parallel.compiling import compile_model\n"
        "from trainctl.parallel.tasks.task import TaskParts\n"
        "model = torch.nn.Linear(1, 1)\n"
        "task = TaskParts(model=model, dataset=None, loss=None)\n"
        "try:\n"
        f"    compile_model(task, None, samples=1, cache_dir=Path({str(tmp_path)!r}), device=torch.device('cpu'))\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error, error.hint)\n"
    )
    environment = {
        **os.environ,
        "PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    environment.pop("CXX", None)
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False, timeout=180
    )
    assert done.stdout.startswith("SpecError"), done.stderr
    assert "needs a C++ compiler on every node, found none on this one" in done.stdout
    assert "apt-get install g++" in done.stdout
