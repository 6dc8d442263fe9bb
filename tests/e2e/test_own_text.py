"""The guide's recipe for text of one's own, with small folders in the place of Debian's packages.

Without it the guide to training on one's own text could lead nowhere.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from architecture.pages import ROOT, blocks
from e2e.local_system import LocalSystem

pytestmark = pytest.mark.e2e
PACKAGES = ("/usr/share/doc/linux-doc-6.1/Documentation", "/usr/share/doc/python3.11/html/_sources")
TEXT = "Fences keep sheep in, and locks keep threads out.\n" * 40


def test_a_folder_of_links_to_folders_is_trained_on(tmp_path: Path) -> None:
    (recipe,) = (block.text for block in blocks(ROOT / "docs" / "guide.md") if PACKAGES[0] in block.text)
    script = "\n".join(line for line in recipe.splitlines() if not line.startswith(("apt-get ", "make ")))
    assert "make demo CORPUS=$PWD/english" in recipe
    for number, package in enumerate(PACKAGES):
        folder = tmp_path / f"package-{number}"
        (folder / "deep").mkdir(parents=True)
        (folder / "deep" / "back").symlink_to(folder)
        for name in ("one.rst.txt", "two.rst.txt", "deep/three.rst.txt"):
            (folder / name).write_text(TEXT)
        assert package in script
        script = script.replace(package, str(folder))
    subprocess.run(["sh", "-euc", script], cwd=tmp_path, check=True, timeout=20)
    train = {
        "model": {"layers": 1, "hidden": 16, "heads": 2, "context": 16},
        "data": {"uri": str(tmp_path / "english"), "holdOutEvery": 3},
        "steps": 3,
        "batch": {"sequences": 4, "microBatches": 2},
        "eval": {"every": 0},
    }
    job = {"metadata": {"name": "english"}, "spec": {"nodes": {"min": 1, "max": 1}, "train": train}}
    system = LocalSystem(tmp_path / "local", agents=1, slots=1)
    system.up()
    try:
        system.submit(yaml.safe_dump(job))
        system.wait_phase("english", "SUCCEEDED", 120)
        assert f"tokenized {tmp_path}/english: 6 files" in system.cli("logs", "english").stdout
    finally:
        system.down()
