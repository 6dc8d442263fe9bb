"""A sample of the corpus of wrong job files through the real command: the same words, soon, and nothing on stdout.

Without it the words for wrong job files could be right in tests of functions and wrong in a terminal.
"""

import os
import resource
import subprocess
from pathlib import Path

import pytest

from corpus.wrong_files import cases
from e2e.local_system import TRAINCTL

pytestmark = pytest.mark.e2e
SAMPLE = [
    "bytes/executable",
    "bytes/latin-1",
    "command/zero-byte",
    "data/source-without-uri",
    "header/metadata-missing",
    "set/several-and-the-file",
    "set/not-yaml",
    "several/every-section",
    "several/in-order-of-position",
    "sizes/alias-bomb-of-lists",
    "sizes/betas",
    "sizes/deep-lists-never-closed",
    "sizes/ten-megabytes",
    "sizes/unknown-fields",
    "sizes/values",
    "unknown/escape-codes-in-key",
    "yaml/empty",
    "yaml/tab-as-indentation",
    "yaml/tag-of-python",
]
CASES = {case.name: case for case in cases() if case.name in SAMPLE}
MOST_CPU_S = 5.0


@pytest.mark.parametrize("name", SAMPLE)
def test_the_command_says_what_is_expected(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tmp_path / case.file_name).write_bytes(case.content)
    options = [word for override in case.overrides for word in ("--set", override)]
    environment = {**os.environ, "TRAINCTL_HOME": str(tmp_path / "home"), "TRAINCTL_CONFIG": "", "NO_COLOR": "1"}
    before_s = _cpu_of_children_s()
    done = subprocess.run(
        [TRAINCTL, "submit", "-f", case.file_name, "--dry-run", *options],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert f"{done.stderr}exit code {done.returncode}\n" == case.expected.read_text()
    assert done.stdout == ""
    assert _cpu_of_children_s() - before_s < MOST_CPU_S
    assert [path.name for path in tmp_path.iterdir()] == [case.file_name]


def _cpu_of_children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
