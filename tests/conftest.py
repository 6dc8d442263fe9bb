"""For all tests."""

import gc
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says more about the machine than about us; pytest-timeout ends what hangs. The examples are
# the same in every run, or a change that has nothing to do with it would be refused; `make chaos` draws new ones.
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize=not os.environ.get("TRAINCTL_FUZZ_EXAMPLES"),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

# A shell that runs the tests in the background lets them ignore Ctrl-C, and with them every process they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_kill = os.kill


def _kill_one(pid: int, number: int) -> None:
    """Number 0, of a worker that has none yet, means this process, all tests beside it, and whoever started them."""
    assert pid > 0, f"expected a process to signal, found {pid}"
    _kill(pid, number)


pytest.MonkeyPatch().setattr(os, "kill", _kill_one)

# Threads of torch's that wait for each other sleep, in all processes of the tests: others need the cores to get there.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Half a million objects of torch and of the tests stay until the end: they are not looked through again and again.
gc.disable()


def pytest_collection_finish() -> None:
    """From here on the collector looks at what tests make."""
    gc.enable()
    gc.collect()
    gc.freeze()
