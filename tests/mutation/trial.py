"""In a process of its own: some tests, with one module changed, or with a look at which lines each of them passes.

The processes are forked from one that has imported what takes long, and none of our modules. The working tree is read,
never written: an import hook hands out the changed module.
"""

from __future__ import annotations

import importlib.machinery
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, ModuleType
from typing import Any

import pytest

from architecture.pages import ROOT
from mutation.mutants import Mutant, code

PRELOADED = ["hypothesis", "coverage", "numpy", "torch", "yaml", "mutation.trial"]
_MOST_BYTES = 6 << 30
_LATE_S = 1e9


class Selection:
    """For pytest: the wanted tests, quickest first, and those whose names nobody knew; hypothesis does not shrink.

    Args:
        seconds: that each wanted test takes, by its id.
        known: ids of all tests that there were before the change.
    """

    def __init__(self, seconds: Mapping[str, float], known: frozenset[str]) -> None:
        self.seconds, self.known, self.failed = seconds, known, ""

    def pytest_sessionstart(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile("mutants", settings(), phases=(Phase.explicit, Phase.generate))
        settings.load_profile("mutants")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        kept = [item for item in items if item.nodeid in self.seconds or item.nodeid not in self.known]
        items[:] = sorted(kept, key=lambda item: self.seconds.get(item.nodeid, _LATE_S))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


class Passed:
    """For pytest: the lines that each test passes, and how long it takes."""

    def __init__(self, folders: Sequence[str]) -> None:
        import coverage

        self.seconds: dict[str, float] = {}
        self.broken: list[str] = []
        self._cover = coverage.Coverage(data_file=None, config_file=False, source=[str(ROOT / one) for one in folders])
        self._cover.start()

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._cover.switch_context(item.nodeid)
        began_s = time.perf_counter()
        yield
        self.seconds[item.nodeid] = round(time.perf_counter() - began_s, 4)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.broken.append(report.nodeid)

    def found(self) -> dict[str, Any]:
        """Per file and line the numbers of the tests that pass it, in the order of ``seconds``."""
        self._cover.stop()
        data, number = self._cover.get_data(), {name: at for at, name in enumerate(self.seconds)}
        lines: dict[str, dict[str, list[int]]] = defaultdict(dict)
        for file in data.measured_files():
            for line, names in data.contexts_by_lineno(file).items():
                lines[str(Path(file).relative_to(ROOT))][str(line)] = [number[one] for one in names if one in number]
        return {"seconds": self.seconds, "lines": lines, "broken": self.broken}


class _Changed(importlib.machinery.SourceFileLoader):
    def __init__(self, mutant: Mutant) -> None:
        super().__init__(mutant.module, str(ROOT / mutant.path))
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return code(self._mutant)


class _Finder:
    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            assert spec.origin == str(ROOT / self._mutant.path), f"{name} is imported from {spec.origin}"
            spec.loader = _Changed(self._mutant)
        return spec


def survives(
    answer: Connection, mutant: Mutant, files: Mapping[str, Mapping[str, float]], known: frozenset[str]
) -> None:
    """Runs tests, one file after another, until one fails; tells which one did, nothing if all pass.

    Args:
        answer: where it is told.
        mutant: what is changed.
        files: the wanted tests of each file, with the seconds that each takes.
        known: ids of all tests that there were before the change.
    """
    sys.meta_path.insert(0, _Finder(mutant))
    _apart()
    for file, seconds in files.items():
        chosen = Selection(seconds, known)
        if _pytest(["-x", file], chosen) not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            answer.send(chosen.failed or f"{file} (cannot be collected)")
            return
    answer.send("")


def passes(answer: Connection, file: str, folders: Sequence[str]) -> None:
    """Runs a file of tests; tells what they pass."""
    _apart()
    seen = Passed(folders)
    _pytest([file], seen)
    answer.send(seen.found())


def _apart() -> None:
    """Whatever a change leads to, this process can be ended with all that it started, and says nothing."""
    os.setsid()
    resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    os.chdir(ROOT)


def _pytest(arguments: Sequence[str], plugin: object) -> int:
    plain = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "--tb=no", "-W", "ignore::pytest.PytestWarning"]
    return int(pytest.main([*plain, f"--basetemp={os.environ['MUTATION_TEMP']}/{os.getpid()}", *arguments], [plugin]))


def server() -> ForkServerContext:
    """Where the processes come from."""
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def run(server: ForkServerContext, work: Callable[..., None], *arguments: Any, limit_s: float) -> Any:
    """What ``work`` answers; None if it takes longer than that, or dies."""
    hear, tell = server.Pipe(duplex=False)
    process = server.Process(target=work, args=(tell, *arguments))
    process.start()
    tell.close()
    try:
        return hear.recv() if hear.poll(limit_s) else None
    except EOFError:
        return None
    finally:
        process.join(2)
        if process.is_alive() and process.pid is not None:
            with suppress(ProcessLookupError):  # it leads no group yet
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
        process.join()


def scratch() -> TemporaryDirectory[str]:
    """A folder for what the tests write, in memory where that can be had."""
    memory = Path("/dev/shm")
    folder = TemporaryDirectory(prefix="mutation-", dir=memory if os.access(memory, os.W_OK) else None)
    os.environ["MUTATION_TEMP"] = folder.name
    return folder
