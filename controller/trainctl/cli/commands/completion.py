"""``trainctl completion``: scripts that leave the thinking to ``trainctl __complete``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.core.errors import PermissionDeniedError

SCRIPTS: Mapping[str, str] = {
    "bash": """\
_trainctl() {
  local IFS=$'\\n'
  COMPREPLY=($(trainctl __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _trainctl trainctl
""",
    "zsh": """\
#compdef trainctl
_trainctl() {
  local -a found
  found=("${(@f)$(trainctl __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
if [[ "${funcstack[1]}" == _trainctl ]]; then _trainctl; else compdef _trainctl trainctl; fi
""",
    "fish": """\
function __trainctl
  set -l words (commandline -opc) (commandline -ct)
  set -l found (trainctl __complete -- $words[2..-1] 2>/dev/null)
  if test -n "$found"; printf '%s\\n' $found; else; __fish_complete_path (commandline -ct); end
end
complete -c trainctl -f -a '(__trainctl)'
""",
}


def run(context: Context) -> int:
    """Prints the script, or puts it where the shell looks for it."""
    shell = context.options.shell
    if not context.options.install:
        context.console.data(SCRIPTS[shell].rstrip("\n"))
        return exit_codes.OK
    path = place(shell, context.env)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SCRIPTS[shell], encoding="utf-8")
    except OSError as error:
        raise PermissionDeniedError(
            f"cannot write {path}: {error.strerror}", hint=f"`trainctl completion {shell}` prints the script"
        ) from error
    context.console.data(str(path))
    context.console.say(_AFTERWARDS[shell].format(folder=path.parent))
    return exit_codes.OK


_AFTERWARDS: Mapping[str, str] = {
    "bash": "new shells complete trainctl, if the package bash-completion is installed",
    "zsh": "new shells complete trainctl, if .zshrc has: fpath=({folder} $fpath); autoload -U compinit && compinit",
    "fish": "new shells complete trainctl",
}


def place(shell: str, env: Mapping[str, str]) -> Path:
    """The file from which a shell of this user loads the completion of ``trainctl``."""
    home = Path(env.get("HOME") or Path.home())
    data = Path(env.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(env.get("XDG_CONFIG_HOME") or home / ".config")
    return {
        "bash": data / "bash-completion" / "completions" / "trainctl",
        "zsh": data / "zsh" / "site-functions" / "_trainctl",
        "fish": config / "fish" / "completions" / "trainctl.fish",
    }[shell]
