"""A copy of live tensors as they are at one moment, made at once or while the next step computes.

Parameters and moments change in the optimizer step only. So the copy of the state after step ``s`` may run during the
forward and backward pass of ``s + 1``, and has to be whole before its optimizer step: everybody who writes to the state
passes ``fence`` first. Buffers may change in any forward pass, and are copied at once. A copy that is late is dropped;
one that somebody changed meanwhile is found out by the tensors' version counters, and dropped, too. What is kept is
never torn.

Where the state lives on a CUDA device, a stream of its own copies, once the training's stream is past the snapshot's
moment. The fence waits on the host, so that its deadline holds: what a stream was told to wait for, it cannot give up.
But it does so only until the last chunk is begun. For the few that are on their way then, the training's stream waits
by an event, while the host goes on to tell it what to do next. The snapshot holds the live tensors and the buffer until
all has arrived, so that nobody gets their memory before.

Source: lazy asynchronous snapshots of DataStates-LLM (HPDC '24), sections 4 and 5; the deadline and the check are ours.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from trainctl.checkpoint.data_file import MAX_FILE_BYTES, Entry
from trainctl.checkpoint.saving import Runs, entries_of, nothing
from trainctl.checkpoint.snapshot.copier import Copier, copier_of
from trainctl.checkpoint.snapshot.host_pool import HostBuffer
from trainctl.checkpoint.state import BUFFER, LocalState, StateTensor
from trainctl.checkpoint.tensors import dtype_of, run_view

CHUNK_BYTES = 16 << 20
"""Copied at a time: the fence ends a late copy between two chunks."""
_ALIGNMENT = 64
_TURN_S = 0.05


@dataclass(frozen=True, slots=True)
class _Piece:
    """One entry: the live tensor that it is read from, and where it goes."""

    live: StateTensor
    entry: Entry
    copy: torch.Tensor


class Snapshot:
    """The assigned runs of a state in a host buffer. One thread copies; whoever writes to the state waits for it.

    Args:
        state: the live tensors; nobody may write to them before the fence is passed. Their moment is now, in the order
            of what the calling thread has its devices do.
        assigned: which runs of them.
        buffer: of at least ``needed_bytes``, pinned for state on CUDA devices; touched until ``copy`` is back.
        max_entry_bytes: size of one entry of a data file, at most.
        copier: how chunks are copied; None: as the state's devices take it.
    """

    def __init__(
        self,
        state: LocalState,
        assigned: Runs,
        buffer: HostBuffer,
        *,
        max_entry_bytes: int = MAX_FILE_BYTES,
        copier: Copier | None = None,
    ) -> None:
        self._copier = copier if copier is not None else copier_of(state)
        self._buffer = buffer  # its memory is pinned only as long as it lives
        self._pieces = _pieces(state, assigned, buffer, max_entry_bytes)
        self._lazy = [piece for piece in self._pieces if piece.entry.key.kind != BUFFER]
        self._versions = [piece.live.changes for piece in self._lazy]
        self._lock = threading.Lock()
        self._wanted = True
        self._begun = self._copied = False
        self._handed_over = threading.Event()
        self._over = threading.Event()
        self._reason = self._cause = ""
        self._passed = threading.Event()
        with torch.no_grad():
            for piece in self._pieces:
                if piece.entry.key.kind == BUFFER:
                    self._copy_piece(piece)
        self._copier.mark_moment()

    @property
    def data(self) -> Mapping[Entry, torch.Tensor]:
        """What to write, once the snapshot is whole and ``copy`` is back."""
        return {piece.entry: piece.copy for piece in self._pieces}

    @property
    def whole(self) -> bool:
        """The fence was passed, all had been copied or was on its way, and nobody had changed anything before."""
        return self._passed.is_set() and not self._reason

    @property
    def reason(self) -> str:
        """Why there is no copy; empty as long as there may be one."""
        return self._reason

    @property
    def cause(self) -> str:
        """The reason in one word of ``monitor.CAUSES``."""
        return self._cause

    @property
    def over(self) -> bool:
        """Nothing is copied any more, and nothing is on its way."""
        return self._over.is_set()

    def copy(self, alive: Callable[[], None] = nothing) -> None:
        """Copies everything, or stops between two chunks when nobody waits any longer. Called once, by any thread.

        Args:
            alive: called for every tensor.
        """
        with self._lock:
            self._begun = self._wanted
        try:
            if self._begun:
                with self._noting(), torch.no_grad(), self._copier.beside_training():
                    self._copied = all(self._copy_piece(piece) for piece in _each(self._lazy, alive))
        finally:
            self._handed_over.set()
            try:
                with self._noting():
                    self._copier.finish()
            finally:
                self._over.set()

    def fence(self, within_s: float, alive: Callable[[], None] = nothing) -> bool:
        """Returns when the state may be changed: the copy is whole, or it was late and is dropped, whatever comes.

        Called by the thread that changes the state, before it does, so that it has changed nothing since if the
        tensors' versions are those of the beginning. What it has a device do then waits for what is still on its way.

        Args:
            within_s: how long to wait for the copy.
            alive: called in turns meanwhile; may raise, and nothing is decided then.
        """
        if self._passed.is_set():
            if self._copied:
                self._copier.hold_back()  # the one that passed it may have been another thread, in another stream
            return self.whole
        until_s = time.monotonic() + within_s
        while not self._handed_over.wait(_turn_s(until_s)) and time.monotonic() < until_s:
            alive()
        if not self._handed_over.is_set():
            with self._lock:
                self._wanted = False
        if self._copied:
            self._copier.hold_back()
        elif self._begun:
            self._over.wait()  # for the chunks that are being copied
        pieces = zip(self._lazy, self._versions, strict=True)
        changed = [piece.entry.key for piece, version in pieces if piece.live.changes != version]
        if not self._copied and not self._reason:
            self._cause = "late_copy"
            self._reason = f"the next change of the state was due, and {within_s:.2f} s later the copy was not whole"
        elif changed:
            self._cause = "changed_state"
            self._reason = (
                f"{changed[0]} was changed before the snapshot's fence was passed: whoever writes to registered state "
                "has to pass it first"
            )
        self._passed.set()
        return self.whole

    def settled(self, within_s: float) -> bool:
        """Whether the fence was passed, after at most so long: from then on ``reason`` stays as it is."""
        return self._passed.wait(within_s)

    def _copy_piece(self, piece: _Piece) -> bool:
        source = run_view(piece.live.tensor, piece.live.shape, piece.live.region, piece.entry.run)
        items = max(1, CHUNK_BYTES // piece.entry.key.item_bytes)
        for begin in range(0, len(source), items):
            if not self._wanted:
                return False
            self._copier.put(piece.copy[begin : begin + items], source[begin : begin + items])
        return self._wanted

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if not self._reason:  # what failed first is why
                self._reason, self._cause = f"copying failed: {error}", "other"
            raise


def _turn_s(until_s: float) -> float:
    return min(_TURN_S, max(0.0, until_s - time.monotonic()))


def _each(pieces: Iterable[_Piece], alive: Callable[[], None]) -> Iterator[_Piece]:
    for piece in pieces:
        alive()
        yield piece


def needed_bytes(state: LocalState, assigned: Runs, *, max_entry_bytes: int = MAX_FILE_BYTES) -> int:
    """Size of the buffer that a snapshot of these runs takes."""
    return sum(_room(entry) for _, entry in entries_of(state, assigned, max_entry_bytes=max_entry_bytes))


def _room(entry: Entry) -> int:
    return -(-entry.size_bytes // _ALIGNMENT) * _ALIGNMENT


def _pieces(state: LocalState, assigned: Runs, buffer: HostBuffer, max_entry_bytes: int) -> Sequence[_Piece]:
    pieces, position = [], 0
    for live, entry in entries_of(state, assigned, max_entry_bytes=max_entry_bytes):
        room = buffer.bytes[position : position + entry.size_bytes]
        pieces.append(_Piece(live, entry, room.view(dtype_of(entry.key.dtype))))
        position += _room(entry)
    return pieces
