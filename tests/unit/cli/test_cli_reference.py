"""Without it the page of commands could promise what is not there, and completion offer nothing or hang the shell."""

import argparse
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainctl.cli import exit_codes
from trainctl.cli.commands.completion import SCRIPTS
from trainctl.cli.grammar import reference
from trainctl.cli.grammar.completing import Names, candidates
from trainctl.cli.grammar.outline import walk
from trainctl.cli.grammar.parser import build_parser
from trainctl.core import errors
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_reference_page_is_fresh() -> None:
    assert PAGE.read_text() == reference.page(), "run: python -m trainctl.cli.grammar.reference docs/cli.md"


def test_every_command_has_a_help_and_every_option_too() -> None:
    for command in walk(build_parser()):
        assert command.summary.endswith("."), command.path
        assert all(action.help for action in (*command.positionals, *command.options)), command.path


def test_every_error_has_a_documented_exit_code() -> None:
    classes = [errors.TrainctlError]
    for cls in classes:
        classes += cls.__subclasses__()
    assert {cls.exit_code for cls in classes if cls.__module__.startswith("trainctl")} <= set(exit_codes.MEANINGS)


def groups(parser: argparse.ArgumentParser, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """The words that only lead to commands, each with the end of its help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                if any(isinstance(inner, argparse._SubParsersAction) for inner in child._actions):
                    yield (*path, name), child.epilog or ""
                    yield from groups(child, (*path, name))


def test_every_command_and_group_has_an_example_that_can_be_parsed() -> None:
    parser = build_parser()
    found = list(groups(parser))
    assert {path for path, _ in found} == {("get",), ("config",), ("local",), ("checkpoints",), ("nodes",), ("tokens",)}
    for path, epilog in [*found, *((command.path, command.epilog) for command in walk(parser))]:
        title, *lines = epilog.strip().splitlines() or [""]
        assert title in ("example:", "examples:"), path
        examples = [line.strip() for line in lines]
        own = [line for line in examples if f"{line} ".startswith(f"trainctl {' '.join(path)} ")]
        assert own, path
        for example in own:
            words = shlex.split(example.partition(" > ")[0])[1:]
            parsed = parser.parse_args(words)
            assert parsed.command, example


def completed(*words: str, env: dict[str, str] | None = None) -> list[str]:
    """What a real bash offers for the last of the words."""
    script = f"""{SCRIPTS["bash"]}
trainctl() {{ "{sys.executable}" -m trainctl.cli "$@"; }}
COMP_WORDS=({" ".join(f'"{word}"' for word in words)})
COMP_CWORD={len(words) - 1}
_trainctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env={**os.environ, **(env or NOWHERE)}
    )
    assert done.stderr == ""
    return done.stdout.split()


NOWHERE = {"TRAINCTL_HOME": "/nonexistent", "TRAINCTL_CONFIG": ""}


def test_completion_knows_commands_flags_and_values() -> None:
    assert completed("trainctl", "su") == ["submit"]
    assert completed("trainctl", "get", "jo") == ["jobs", "job"]
    assert completed("trainctl", "--debug", "local", "up", "--ag") == ["--agents"]
    assert completed("trainctl", "completion", "b") == ["bash"]
    assert completed("trainctl", "get", "jobs", "-o", "j") == ["json", "jsonpath="]
    assert completed("trainctl", "timeline", "-o", "ch") == ["chrome-trace"]
    assert completed("trainctl", "submit", "-f", "") == []  # files: the shell's own business
    assert completed("trainctl", "describe", "") == []  # no controller: silence


def test_completion_knows_the_jobs_nodes_and_contexts(controller: FakeController, environment: dict[str, str]) -> None:
    for name in ("job-b", "job-a", "other"):
        controller.add_job(name)
    assert completed("trainctl", "describe", "job", env=environment) == ["job-a", "job-b"]
    assert completed("trainctl", "logs", "--tail", "5", "o", env=environment) == ["other"]
    Path(environment["TRAINCTL_CONFIG"]).write_text("contexts: {lab: {address: 'h:1'}}")
    assert completed("trainctl", "config", "use-context", "l", env=environment) == ["lab"]


HELD_S = 30.0
"""So long a controller says nothing."""


def test_completion_does_not_wait_for_a_silent_controller(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    controller.add_job("a")
    held = threading.Event()

    def hold(method: str) -> None:
        held.wait(HELD_S)

    controller.on_call = hold
    begun_s = time.monotonic()
    result = cli("__complete", "--", "describe", "")
    held.set()
    assert time.monotonic() - begun_s < HELD_S / 2
    assert (result.out, result.err) == ("", "")


def test_candidates_come_from_the_grammar_alone() -> None:
    parser = build_parser()
    assert candidates(parser, ["cancel", "x"]) == Names("job", "x")
    assert candidates(parser, ["cancel", "x", "y"]) == []
    assert candidates(parser, ["--context", ""]) == Names("context", "")
    assert candidates(parser, ["doctor", "--job", "a"]) == Names("job", "a")
    assert candidates(parser, ["checkpoints", "export", "a", "m", "--dtype=b"]) == ["--dtype=bfloat16"]
    assert "__complete" not in candidates(parser, [""])  # type: ignore[operator]


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_completion_is_installed_where_the_shell_looks(shell: str, cli: Cli, environment: dict[str, str]) -> None:
    environment |= {"HOME": environment["TRAINCTL_HOME"]}
    result = cli("completion", shell, "--install")
    assert result.code == 0, result.err
    path = Path(result.out.strip())
    assert path.is_relative_to(environment["HOME"])
    assert path.read_text() == SCRIPTS[shell]
    assert cli("completion", shell).out == SCRIPTS[shell]
    environment["XDG_DATA_HOME"] = environment["XDG_CONFIG_HOME"] = "/proc/nowhere"
    assert cli("completion", shell, "--install").code == 5
