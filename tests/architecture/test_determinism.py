"""What a controller takes from outside (time, chance, names) comes through its frame: so it can be simulated.

Without it the simulation of a controller would differ from run to run, and a bug found by a seed be lost again.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from architecture.pages import ROOT

CONTROLLER = ROOT / "controller" / "trainctl" / "controller"
EDGE = frozenset(
    {
        "frame.py",  # where the real ones are put in
        "run_dir.py",  # files of the machine, and the token
        "main.py",
        "rpc/interceptor.py",  # gRPC's own edge
        "store/etcd/store.py",
        "store/etcd/connection.py",
    }
)
SECRETS = ("access", "security")
"""Folders that make secrets: those must not come from a source that can be repeated."""
FORBIDDEN = {
    "time": frozenset({"time", "monotonic", "perf_counter", "time_ns", "monotonic_ns", "sleep"}),
    "os": frozenset({"urandom", "getrandom"}),
    "random": None,
    "uuid": None,
    "secrets": None,
    "datetime": frozenset({"now", "utcnow", "today"}),
}


def offences(source: str) -> Iterator[str]:
    """Every use of a clock or of chance that was not handed in."""
    tree = ast.parse(source)
    types = {"Random"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("random", "uuid", "secrets", "time"):
            names = {alias.name for alias in node.names} - types
            if names:
                yield f"line {node.lineno}: from {node.module} import {', '.join(sorted(names))}"
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        banned = FORBIDDEN.get(node.value.id, frozenset())
        if banned is None or node.attr in banned:
            yield f"line {node.lineno}: {node.value.id}.{node.attr}"


FILES = sorted(path.relative_to(CONTROLLER) for path in CONTROLLER.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_clock_and_no_chance_but_those_handed_in(path: Path) -> None:
    if path.as_posix() in EDGE or path.parts[0] in SECRETS:
        return
    found = list(offences((CONTROLLER / path).read_text()))
    assert not found, f"{path}: {found}: take the clock or `chance` of the frame (docs/simulation.md)"


def test_the_check_sees_what_it_looks_for() -> None:
    for line in ("time.time()", "os.urandom(3)", "random.random()", "uuid.uuid4()", "secrets.token_hex(2)"):
        assert list(offences(f"import os, random, secrets, time, uuid\n{line}")), line
    assert list(offences("from uuid import uuid4"))
    assert list(offences("from datetime import datetime\ndatetime.now()"))
    assert not list(offences("from random import Random\ndef f(chance: Random) -> float:\n    return chance.random()"))
