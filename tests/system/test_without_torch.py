"""Controller and command line in a clean environment that has no torch: what a login node or a small image has.

Without it a login node would have to install torch to submit a job.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)
ROOT = Path(__file__).parents[2]
JOB = """
apiVersion: trainctl.dev/v1
kind: TrainJob
metadata: {name: waits}
spec: {nodes: {min: 1, max: 1}, train: {steps: 5}}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with our wheel and its own dependencies, no extras."""
    folder = tmp_path_factory.mktemp("bare") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    pip = [str(folder / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), str(ROOT)], check=True, timeout=480)
    return folder / "bin"


def run(command: list[str], home: Path, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    bare = {"PATH": os.environ["PATH"], "HOME": str(home), "TRAINCTL_HOME": str(home), "NO_COLOR": "1"}
    done = subprocess.run(command, env=bare, cwd=home, capture_output=True, text=True, timeout=60, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


def test_torch_is_really_absent(environment: Path, tmp_path: Path) -> None:
    done = run([str(environment / "python"), "-c", "import torch"], tmp_path, check=False)
    assert "No module named 'torch'" in done.stderr


def test_every_module_of_controller_and_cli_imports(environment: Path, tmp_path: Path) -> None:
    script = (
        "import importlib, pkgutil, trainctl.cli, trainctl.controller, trainctl.parallel.plan, "
        "trainctl.checkpoint.layout as layout\n"
        "for package in (trainctl.cli, trainctl.controller, trainctl.parallel.plan, layout):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'):\n"
        "            importlib.import_module(module.name)\n"
        "            print(module.name)\n"
    )
    done = run([str(environment / "python"), "-c", script], tmp_path)
    assert len(done.stdout.splitlines()) > 40


def test_controller_takes_a_job_and_explains_why_it_waits(environment: Path, tmp_path: Path) -> None:
    trainctl = str(environment / "trainctl")
    (tmp_path / "job.yaml").write_text(JOB)
    run([trainctl, "local", "up", "--agents", "0"], tmp_path)
    try:
        run([trainctl, "submit", "-f", "job.yaml"], tmp_path)
        assert "QUEUED" in run([trainctl, "get", "jobs"], tmp_path).stdout
        assert "slot" in run([trainctl, "explain", "waits"], tmp_path).stdout
        run([trainctl, "cancel", "waits", "-y"], tmp_path)
    finally:
        run([trainctl, "local", "down"], tmp_path)


def test_export_says_which_extra_it_needs(environment: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkpoints"
    source.mkdir()
    done = run([str(environment / "trainctl"), "checkpoints", "export", str(source), "out"], tmp_path, check=False)
    assert done.returncode != 0
    assert "trainctl-orchestrator[export]" in done.stderr
