"""How the ranks' launchers meet before they start their commands: who serves the commands' store, and which devices."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from trainctl.core.records.generation import GenerationRecord
from trainctl.core.system.deadline import Deadline, comes_true
from trainctl.parallel.collectives.serve_store import serve_store
from trainctl.parallel.plan.command_env import host_of, seat_of

_POLL_S = 0.01
_MASTER = "master"


class Meeting:
    """One generation's meeting, through the agents' collective store, on a thread of its own.

    Rank 0 serves a new store for the commands, which lives until the block is left: scripts may use the same keys in
    each generation, so that no two generations may share a store.

    Args:
        record: the generation.
        rank: in it.
        device: number of this worker's accelerator on the machine.
        timeout_s: longest wait for the others.

    Attributes:
        master: address of the commands' store once ``done``.
        devices: of the ranks of this node, in rank order, once ``done``.
        error: why it failed, once ``done``; empty if it did not.
    """

    def __init__(self, record: GenerationRecord, rank: int, *, device: int, timeout_s: float) -> None:
        self._record = record
        self._rank = rank
        self._device = device
        self._timeout_s = timeout_s
        self._left = threading.Event()
        self._ended = threading.Event()
        self._served: TCPStore | None = None
        self.master = ""
        self.devices: tuple[int, ...] = ()
        self.error = ""

    def __enter__(self) -> Meeting:
        threading.Thread(target=self._run, name="command-meeting", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._left.set()
        self._served = None

    @property
    def done(self) -> bool:
        """Whether all that was needed is known, or will never be."""
        return self._ended.is_set()

    def _run(self) -> None:
        try:
            self._meet()
        except (RuntimeError, OSError) as error:
            self.error = str(error).strip().splitlines()[0][:300]
        self._ended.set()

    def _meet(self) -> None:
        host, _, port = self._record.store_address.rpartition(":")
        store = TCPStore(host, int(port), None, False, timedelta(seconds=self._timeout_s), False)
        scoped = PrefixStore(f"{self._record.store_prefix}/command", store)
        told = {f"device/{self._rank}": str(self._device)}
        if self._rank == 0:
            self._served = serve_store(host_of(self._record.members))
            told[_MASTER] = f"{host_of(self._record.members)}:{self._served.port}"
        for key, value in told.items():
            scoped.set(key, value)
        neighbours = [f"device/{rank}" for rank in seat_of(self._record, self._rank).neighbours]
        found = self._wait_for(scoped, [_MASTER, *neighbours])
        self.master = found[_MASTER]
        self.devices = tuple(int(found[key]) for key in neighbours)

    def _wait_for(self, store: PrefixStore, keys: list[str]) -> Mapping[str, str]:
        """Polls: nobody could end a wait inside the store when a newer generation calls."""

        def told() -> bool:
            if self._left.is_set():
                raise OSError("left")
            return bool(store.check(keys))

        if not comes_true(told, Deadline(self._timeout_s), _POLL_S):
            absent = ", ".join(key for key in keys if not store.check([key]))
            raise OSError(f"nobody told {absent} within {self._timeout_s:g} s")
        return {key: store.get(key).decode() for key in keys}
