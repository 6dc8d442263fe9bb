"""A process that saves to an object store is killed at a request that changes something there, heard or unheard.

Without it a crash between two requests could cost the only checkpoint.

What was complete before loads afterwards, or the new one does; what is left behind goes with the next save, but for an
upload of which nobody knows. `make test-system` kills at those requests that complete something, `make chaos` at all of
them.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from multiproc.life import fork_server
from multiproc.ways_to_save import loaded_from, save_in_parts, two_parts
from object_store.store import Store
from trainctl.checkpoint.storage import upload
from trainctl.checkpoint.storage.opening import open_storage
from waiting import PATIENCE_S

pytest_plugins = ["object_store.fixtures"]
pytestmark = pytest.mark.multiproc
CHANGES = "PUT POST DELETE"


def folders(uri: str) -> list[str]:
    """Of steps, and of attempts at them."""
    storage = open_storage(uri)
    steps = storage.list("")
    return [*steps, *(attempt for step in steps for attempt in storage.list(step))]


def saver(uri: str, step: int) -> Any:
    """A process that will save. From the fork server: a child of this one would share the sockets of its event loop."""
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return fork_server().Process(target=save_in_parts, args=(uri, step, env), daemon=True)


def ends(child: Any) -> int:
    """Starts it; its exit code."""
    child.start()
    child.join(PATIENCE_S)
    code = child.exitcode
    assert code is not None, "it takes too long"
    return int(code)


class Victim:
    """Saves of step 2 by children, each to a folder where step 1 is.

    Attributes:
        requests: that change something, of a save that nobody kills.
        left: how many uploads were begun and not ended; they are for the bucket's own rules to remove.
    """

    def __init__(self, store: Store) -> None:
        self.left = 0
        self._store = store
        uri = self._with_step_1("alone")
        before = len(self._changes())
        assert ends(saver(uri, 2)) == 0
        assert loaded_from(uri, two_parts) == 2
        self.requests = self._changes()[before:]

    def number_of(self, *parts: str) -> int:
        """Of the first request that contains these."""
        return next(n for n, request in enumerate(self.requests) if all(part in request for part in parts))

    def is_killed_at(self, number: int, *, heard: bool) -> None:
        """What is there afterwards is what has to be."""
        uri = self._with_step_1(f"{number}-{heard}")
        child = saver(uri, 2)
        self._store.proxy.when(CHANGES).after(number).kill(lambda: child.pid, heard=heard)
        assert ends(child) == -signal.SIGKILL
        done = number + 1 if heard else number
        assert loaded_from(uri, two_parts) == (2 if done > self.number_of(" conditional") else 1)
        save_in_parts(uri, 3, {})
        assert loaded_from(uri, two_parts) == 3
        assert len(folders(uri)) == 2, "the step, and one attempt"
        first, last = self.number_of("POST", "?uploads"), self.number_of("POST", "?uploadId=")
        self.left += first < done <= last

    def _with_step_1(self, name: str) -> str:
        uri = f"{self._store.uri}-{name}"
        save_in_parts(uri, 1, {})
        return uri

    def _changes(self) -> list[str]:
        return [one for one in self._store.proxy.requests if one.split()[0] in CHANGES.split()]


@pytest.fixture
def victim(store: Store, monkeypatch: pytest.MonkeyPatch) -> Victim:
    monkeypatch.setattr(upload, "PART_BYTES", upload.PART_BYTES)  # as it was, afterwards
    return Victim(store)


def test_killed_at_the_requests_that_complete_something(store: Store, victim: Victim) -> None:
    victim.is_killed_at(victim.number_of("POST", "?uploadId="), heard=False)
    victim.is_killed_at(victim.number_of(" conditional"), heard=False)
    victim.is_killed_at(victim.number_of(" conditional"), heard=True)
    assert store.uploads() == victim.left == 1


@pytest.mark.chaos
@pytest.mark.parametrize("heard", [False, True])
def test_killed_at_every_request(store: Store, victim: Victim, heard: bool) -> None:
    assert len([request for request in victim.requests if "partNumber=" in request]) == 2, victim.requests
    for number in range(len(victim.requests)):
        victim.is_killed_at(number, heard=heard)
    assert store.uploads() == victim.left == 3
