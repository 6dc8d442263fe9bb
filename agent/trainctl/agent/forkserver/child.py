"""What happens in a forked child before and after its main function."""

from __future__ import annotations

import faulthandler
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from trainctl.agent.forkserver.messages import Spawn
from trainctl.core.system.processes import die_with_parent


def run_child(spawn: Spawn, fds: Sequence[int], parent_pid: int) -> NoReturn:
    """Makes this fresh fork a process of its own, calls its main function and ends it; never returns."""
    code = 1
    try:
        arguments = _settle(spawn, fds, parent_pid)
        _resolve(spawn.entry)(**arguments)
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # whatever it is, the child must end here and not return into the server's loop
        traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def _settle(spawn: Spawn, fds: Sequence[int], parent_pid: int) -> dict[str, str | int]:
    """Own session, default signals, own output and environment; returns the arguments of the main function.

    A session of its own keeps a terminal's Ctrl-C away and lets the server end whatever the child started itself.
    """
    die_with_parent(parent_pid)
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.environ.update(spawn.env)
    arguments: dict[str, str | int] = dict(spawn.arguments)
    for name, fd in zip(spawn.fd_names, fds, strict=True):
        if name == "log":
            os.dup2(fd, 1)
            os.dup2(fd, 2)
            os.close(fd)
        elif name.endswith("_path"):
            arguments[name] = f"/proc/self/fd/{fd}"
        else:
            arguments[name] = fd
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True, chain=False)
    gc.enable()
    return arguments


def _resolve(entry: str) -> Callable[..., object]:
    module, _, function = entry.partition(":")
    main: Callable[..., object] = getattr(importlib.import_module(module), function)
    return main


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # nobody reads any more, or the program closed it
            continue
