"""``trainctl completion``: a script that knows the grammar; it asks the controller only for names of jobs."""

from __future__ import annotations

from collections import defaultdict

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.grammar import walk
from trainctl.cli.parser import build_parser

_SCRIPT = """\
_trainctl() {
  local current="${COMP_WORDS[COMP_CWORD]}" path="" words="" word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in
      @paths@) path="$path $word" ;;
    esac
  done
  case "$path" in
@cases@
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -o default -F _trainctl trainctl
"""
_JOB_NAMES = "$(trainctl get jobs -o name --timeout 2s 2>/dev/null)"


def run(context: Context) -> int:
    """Prints the script."""
    context.console.data(bash_script().rstrip("\n"))
    return exit_codes.OK


def bash_script() -> str:
    """The completion script for bash."""
    words: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for command in walk(build_parser()):
        for depth in range(len(command.path)):
            if command.path[depth] not in words[command.path[:depth]]:
                words[command.path[:depth]].append(command.path[depth])
        words[command.path] += [flag for option in command.options for flag in option.option_strings]
        words[command.path] += [str(c) for p in command.positionals for c in p.choices or ()]
        if any("NAME" in str(p.metavar) for p in command.positionals):
            words[command.path].append(_JOB_NAMES)
    paths = "|".join(f'" {" ".join(path)}"' for path in words if path)
    cases = [f'    "{"".join(f" {word}" for word in path)}") words="{" ".join(w)}" ;;' for path, w in words.items()]
    return _SCRIPT.replace("@paths@", paths).replace("@cases@", "\n".join(cases))
