"""The arrows of docs/architecture.md, held by import-linter, and the rules that it cannot express.

Without it a login node would need torch for a command line, and pure decisions could come to read clocks and disks.
"""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PORTIONS = ("protos", "parallel", "checkpoint", "controller", "agent")


def test_import_contracts_are_kept() -> None:
    # In a process of its own: import-linter configures logging anew, which would silence this process's loggers.
    lint = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", lint], cwd=ROOT, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("portion", PORTIONS)
def test_namespace_folder_has_no_init(portion: str) -> None:
    # One stray __init__.py would make every other portion of the namespace package vanish.
    assert not (ROOT / portion / "trainctl" / "__init__.py").exists()


def test_every_package_has_init_and_marker() -> None:
    packages = [folder for portion in PORTIONS for folder in (ROOT / portion / "trainctl").iterdir() if folder.is_dir()]
    top = [folder for folder in packages if folder.name != "__pycache__"]
    assert len(top) == 7
    for folder in top:
        assert (folder / "__init__.py").exists(), folder
        assert (folder / "py.typed").exists(), folder
