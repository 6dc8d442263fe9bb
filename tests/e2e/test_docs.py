"""Blocks of the docs that are marked ``run``, executed in the order of their page (see ``architecture.pages``).

Without it the first things that a new user types could fail.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from architecture.pages import ROOT, Block, blocks, written_pages
from e2e.local_system import TRAINCTL

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
BLOCK_S = 300
RUNNING = sorted(
    (page for page in written_pages() if any(block.runs for block in blocks(page))),
    key=lambda page: -sum(block.text.count("\n") for block in blocks(page) if block.runs),
)
"""The longest first, so that none of them comes last alone."""


class Reader:
    """Somebody who follows a page in a checkout of their own, and types everything into one terminal."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.folder = folder / "checkout"
        self.home.mkdir()
        self.folder.mkdir()
        (self.folder / "docs").symlink_to(ROOT / "docs")
        (self.folder / ".venv").symlink_to(sys.prefix)
        self._state = folder / "state.sh"
        self.output = ""
        # Nothing else of the environment: a page has to work for everybody.
        names = ("LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "OMP_WAIT_POLICY")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        path = os.pathsep.join([str(Path(TRAINCTL).parent), os.environ["PATH"]])
        self._environment = {**kept, "PATH": path, "HOME": str(self.home), "NO_COLOR": "1", "COLUMNS": "120"}

    def follow(self, block: Block) -> None:
        """Does what the block is there for."""
        if block.file:
            (self._here() / block.file).write_text(block.text)
        if block.runs:
            self.output = self._run(block)
        if "output" in block.words:
            missing = first_missing(block.text, self.output)
            assert missing is None, f"{block.where}: expected {missing!r} in\n{self.output}"

    def shell(self, text: str, *, check: str = "") -> str:
        """Runs shell commands where those before ended, with their variables and functions; the whole output."""
        before = f". '{self._state}'\n" if self._state.exists() else ""
        after = f"leave() {{ export -p; declare -f; echo \"cd '$PWD'\"; }}\ntrap \"leave > '{self._state}'\" EXIT\n"
        # set -a: all variables are exported from here on, so that all of them can be handed on.
        return self._process(["bash", "-euo", "pipefail", "-c", f"{before}{after}set -a\n{text}"], check)

    def _run(self, block: Block) -> str:
        if block.language == "python":
            (script := self._here() / ".block.py").write_text(block.text)
            return self.shell(f"python '{script}'", check=block.where)
        return self.shell(block.text, check=block.where)

    def _here(self) -> Path:
        found = re.search(r"^cd '(.*)'$", self._state.read_text() if self._state.exists() else "", re.MULTILINE)
        return Path(found[1]) if found else self.folder

    def _process(self, command: list[str], check: str) -> str:
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=BLOCK_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            pytest.fail(f"{check}: not done within {BLOCK_S} s\n{(error.stdout or b'').decode(errors='replace')}")
        if check:
            assert done.returncode == 0, f"{check}: exit code {done.returncode}\n{done.stdout}"
        return done.stdout


def first_missing(expected: str, output: str) -> str | None:
    """The first expected line that does not come in its turn; ``...`` stands for anything, spaces do not count."""
    lines = iter([" ".join(line.split()) for line in output.splitlines()])
    for line in filter(None, (" ".join(line.split()) for line in expected.splitlines())):
        pattern = re.compile(".*".join(re.escape(part.strip()) for part in line.split("...")))
        if line != "..." and not any(pattern.fullmatch(found) for found in lines):
            return line
    return None


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    # Wherever the page stopped, nothing of it goes on.
    reader.shell("if test -e ~/.trainctl/local; then trainctl local down --purge -y; fi", check="after the page")


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in RUNNING])
def test_the_blocks_of_a_page_do_what_it_says(page: Path, reader: Reader) -> None:
    for block in blocks(page):
        reader.follow(block)


@pytest.mark.parametrize(
    ("expected", "missing"),
    [
        ("a ...\n\n...\nlast  line", None),
        ("a\n", "a"),
        ("... 12 ...\na ...", "a ..."),
        ("last", "last"),
    ],
)
def test_an_output_is_compared_line_by_line(expected: str, missing: str | None) -> None:
    assert first_missing(expected, "a 1 b\nc 12 d\n  last line\n") == missing


def test_a_reader_stays_where_they_went(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.shell("mkdir 'a b'; cd 'a b'; X='1 2'; twice() { echo \"$1 $1\"; }")
    assert reader.shell('twice "$X"; pwd').splitlines() == ["1 2 1 2", str(reader.folder / "a b")]
    with pytest.raises(AssertionError, match="exit code 1"):
        reader.shell("false; true", check="a block")
