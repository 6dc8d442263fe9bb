"""Wrong job files and what a user is told about them.

A case is a file ``cases/GROUP/NAME.yaml``, or bytes that ``made.py`` makes, with a file ``.expected``: what
``trainctl submit -f NAME.yaml --dry-run`` writes, and its exit code. Lines ``# --set PATH=VALUE`` at the head of a file
are options.

After a rule or message has changed, ``make corpus`` rewrites the expectations and lists those that changed; read them
as somebody who made the mistake.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus.made import MADE
from trainctl.cli.context import Context
from trainctl.cli.failures import report
from trainctl.cli.job_file.jobfile import read_job_file
from trainctl.cli.terminal.console import Console
from trainctl.controller.domain.spec import parse_job
from trainctl.core.errors import SpecError

FOLDER = Path(__file__).with_name("cases")
_OPTION = re.compile(r"# --set (.*)")


@dataclass(frozen=True, slots=True)
class Case:
    """One wrong file.

    Attributes:
        name: ``GROUP/NAME``.
        content: of the file.
    """

    name: str
    content: bytes

    @property
    def file_name(self) -> str:
        return f"{self.name.rpartition('/')[2]}.yaml"

    @property
    def expected(self) -> Path:
        return FOLDER / f"{self.name}.expected"

    @property
    def overrides(self) -> tuple[str, ...]:
        found = []
        for line in self.content.decode(errors="replace").splitlines():
            option = _OPTION.fullmatch(line)
            if option is None:
                break
            found.append(option[1])
        return tuple(found)


def cases() -> Iterator[Case]:
    """All cases by name."""
    written = {str(path.relative_to(FOLDER).with_suffix("")): path.read_bytes() for path in FOLDER.rglob("*.yaml")}
    for name, content in sorted({**written, **MADE}.items()):
        yield Case(name, content)


def error_of(case: Case, folder: Path) -> SpecError | None:
    """What reading and checking the file raises, ``folder`` being the working directory with the file in it."""
    (folder / case.file_name).write_bytes(case.content)
    with contextlib.chdir(folder):
        try:
            text, source = read_job_file(case.file_name)
            parse_job(text, source=source, overrides=case.overrides)
        except SpecError as error:
            return error
    return None


def shown(error: SpecError) -> str:
    """What the command line writes, and its exit code."""
    stderr = io.StringIO()
    console = Console(io.StringIO(), stderr, {})
    code = report(Context(options=argparse.Namespace(), console=console, env={}), error, debug=False)
    return f"{stderr.getvalue()}exit code {code}\n"


def main() -> None:
    changed = 0
    with tempfile.TemporaryDirectory() as folder:
        for case in cases():
            error = error_of(case, Path(folder))
            if error is None:
                sys.exit(f"{case.name} is a valid job file: mend or remove it")
            text = shown(error)
            if not case.expected.exists() or case.expected.read_text() != text:
                case.expected.parent.mkdir(parents=True, exist_ok=True)
                case.expected.write_text(text)
                changed += 1
                print(f"# {case.name}\n{text}")
    known = {case.expected for case in cases()}
    for path in set(FOLDER.rglob("*.expected")) - known:
        path.unlink()
        changed += 1
    print(f"{changed} of {len(known)} expectations changed")


if __name__ == "__main__":
    main()
