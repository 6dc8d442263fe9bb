"""What the make targets see to before they run anything: the compiler of ``make test-system``.

Without it `make test-system` could leave out what needs a compiler, or fail with an error that nobody understands.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from architecture.pages import ROOT

SCRIPT = ROOT / "tests" / "system" / "compiler.sh"


def command(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def seen_to(folder: Path, *, user: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script's answer on a machine whose commands are those in ``folder``."""
    command(folder, "id", f"echo {user}")
    return subprocess.run(
        ["/bin/sh", str(SCRIPT)],
        env={"PATH": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize("name", ["g++", "clang++", "c++"])
def test_a_compiler_that_is_there_is_taken(tmp_path: Path, name: str) -> None:
    command(tmp_path, name, "")
    done = seen_to(tmp_path, user=1000)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\n", "")
    command(tmp_path, "mine", "")
    assert seen_to(tmp_path, user=1000, CXX="mine").stdout == "mine\n"


def test_root_gets_one_and_others_are_told_in_one_sentence(tmp_path: Path) -> None:
    command(tmp_path, "apt-get", 'echo "$@" >>' + str(tmp_path / "asked"))
    done = seen_to(tmp_path, user=1000)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: [^\n]*C\+\+ compiler[^\n]*apt-get install g\+\+\n", done.stderr)
    assert not (tmp_path / "asked").exists()
    done = seen_to(tmp_path, user=0)
    assert (done.returncode, done.stdout) == (0, "g++\n"), done.stderr
    assert re.search(r"^install .*g\+\+$", (tmp_path / "asked").read_text(), re.MULTILINE)


def test_an_installation_that_fails_is_no_compiler(tmp_path: Path) -> None:
    command(tmp_path, "apt-get", "exit 100")
    done = seen_to(tmp_path, user=0)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: the system tests need a C++ compiler")


def test_make_test_hides_the_compiler_from_its_tests_and_make_test_system_hands_it_over() -> None:
    def lines(target: str) -> list[str]:
        done = subprocess.run(
            ["make", "-n", "-o", "install", target], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True
        )
        return [line for line in done.stdout.replace("\\\n", "").splitlines() if "pytest" in line]

    assert lines("test")
    assert all(line.startswith("CXX=/no/compiler") for line in lines("test"))
    (line,) = [line for line in lines("test-system") if "pytest tests/system" in line]
    assert line.startswith('CXX="$(tests/system/compiler.sh)" && export CXX && ')
    assert set(re.findall(r"tests/system/test_\w+\.py", line)) == {
        f"tests/system/{path.name}" for path in SCRIPT.parent.glob("test_*.py")
    }
