"""What every command is given."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainctl.cli.terminal.console import Console


@dataclass(slots=True)
class Context:
    """One run of the command.

    Attributes:
        options: the parsed command line.
        console: where to write.
        env: the environment.
        tenant: whose jobs this command is about, once that is known better than from the settings.
        request_id: id of the mutation that is being sent; shown with an error, so that it can be sent again.
        changed: a change that this command asked for has been made: what goes wrong now does not undo it.
        on_interrupt: what to say when the user presses Ctrl-C now.
    """

    options: argparse.Namespace
    console: Console
    env: Mapping[str, str]
    tenant: str = ""
    request_id: str = ""
    changed: bool = False
    on_interrupt: tuple[str, ...] = field(default=("interrupted",))

    @property
    def run_dir(self) -> Path:
        """Folder of the local installation: ``$TRAINCTL_HOME/local``, by default ``~/.trainctl/local``."""
        home = self.env.get("TRAINCTL_HOME")
        return (Path(home).expanduser() if home else Path.home() / ".trainctl").absolute() / "local"

    def dir_option(self, run_dir: Path) -> str:
        """What a hint puts behind ``trainctl local up``: the folder, where it is not the one taken by itself."""
        return "" if run_dir == self.run_dir else f" --dir {shlex.quote(str(run_dir))}"
