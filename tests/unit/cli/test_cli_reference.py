import subprocess
from pathlib import Path

from trainctl.cli import exit_codes, reference
from trainctl.cli.commands.completion import bash_script
from trainctl.cli.grammar import walk
from trainctl.cli.parser import build_parser
from trainctl.core import errors

PAGE = Path(__file__).parents[3] / "docs" / "cli.md"


def test_reference_page_is_fresh() -> None:
    assert PAGE.read_text() == reference.page(), "run: python -m trainctl.cli.reference docs/cli.md"


def test_every_command_has_a_help_and_every_option_too() -> None:
    for command in walk(build_parser()):
        assert command.summary.endswith("."), command.path
        assert all(action.help for action in (*command.positionals, *command.options)), command.path


def test_every_error_has_a_documented_exit_code() -> None:
    classes = [errors.TrainctlError]
    for cls in classes:
        classes += cls.__subclasses__()
    assert {cls.exit_code for cls in classes if cls.__module__.startswith("trainctl")} <= set(exit_codes.MEANINGS)


def completed(*words: str) -> list[str]:
    script = f"""{bash_script()}
trainctl() {{ echo job-a; }}
COMP_WORDS=({" ".join(f'"{word}"' for word in words)})
COMP_CWORD={len(words) - 1}
_trainctl
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_knows_commands_flags_and_jobs() -> None:
    assert completed("trainctl", "su") == ["submit"]
    assert completed("trainctl", "get", "jo") == ["jobs", "job"]
    assert completed("trainctl", "describe", "job") == ["job-a"]
    assert completed("trainctl", "--debug", "local", "up", "--ag") == ["--agents"]
    assert completed("trainctl", "completion", "b") == ["bash"]
