"""Commands that can run inside a worker's process.

Without it a command could be taken for another program than the one it starts, or refused for a harmless option.
"""

from __future__ import annotations

import pytest

from trainctl.parallel.plan.program import PythonProgram, python_program


@pytest.mark.parametrize("python", ["python", "python3", "python3.11", "/usr/bin/python3", "./venv/bin/python"])
def test_a_script(python: str) -> None:
    assert python_program([python, "train.py", "--lr", "1"]) == PythonProgram("train.py", "", ("--lr", "1"))


def test_a_module() -> None:
    assert python_program(["python", "-m", "my.train", "-x"]) == PythonProgram("", "my.train", ("-x",))


@pytest.mark.parametrize("options", [["-u"], ["-B"], ["-u", "-B"], ["-B", "-u", "-u"]])
def test_options_that_change_nothing_are_left_out(options: list[str]) -> None:
    assert python_program(["python", *options, "a.py"]) == PythonProgram("a.py", "", ())
    assert python_program(["python", *options, "-m", "a"]) == PythonProgram("", "a", ())


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["bash", "train.sh"],
        ["python2", "a.py"],
        ["pythonx", "a.py"],
        ["python"],
        ["python", "-u"],
        ["python", "-m"],
        ["python", "-c", "pass"],
        ["python", "-O", "a.py"],
    ],
)
def test_what_is_no_python_program(command: list[str]) -> None:
    assert python_program(command) is None
