"""``trainctl demo``: the main job with its failures, in an installation of its own that is gone afterwards."""

from __future__ import annotations

import dataclasses
import glob
import signal
from pathlib import Path
from types import FrameType

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.demo.scenario import Demo
from trainctl.core.errors import UsageError
from trainctl.core.texts import quoted

_CONNECTION = ("TRAINCTL_ADDRESS", "TRAINCTL_TOKEN_FILE", "TRAINCTL_CONTEXT")


def run(context: Context) -> int:
    """Runs the demo; whatever ends it, its processes end, too."""
    corpus = _absolute(context.options.corpus)
    folder = Path(context.options.dir).expanduser().absolute()
    own = {name: value for name, value in context.env.items() if name not in _CONNECTION}
    own |= {"TRAINCTL_HOME": str(folder / "home"), "TRAINCTL_CONFIG": ""}
    context.on_interrupt = ("interrupted: the demo has stopped and cleaned up after itself",)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    Demo(context=dataclasses.replace(context, env=own), folder=folder, corpus=corpus).run()
    return exit_codes.OK


def _absolute(corpus: str) -> str:
    """Workers have other current folders: a path has to be absolute, a URL or a name stays as it is.

    Raises:
        UsageError: there is nothing.
    """
    if corpus == "python-stdlib" or "://" in corpus:
        return corpus
    path = Path(corpus).expanduser().absolute()
    if not path.exists() and not any(glob.iglob(str(path), recursive=True)):
        raise UsageError(f"--corpus: {quoted(corpus)} does not exist", hint="give a folder, a file, a glob or a URL")
    return str(path)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
