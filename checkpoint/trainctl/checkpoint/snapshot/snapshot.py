"""A copy of live tensors as they are at one moment, made at once or while the next step computes.

Parameters and moments change in the optimizer step only. So the copy of the state after step ``s`` may run during the
forward and backward pass of ``s + 1``, and has to be whole before its optimizer step: everybody who writes to the state
passes ``fence`` first. Buffers may change in any forward pass, and are copied at once. A copy that is late is dropped;
one that somebody changed meanwhile is found out by the tensors' version counters, or by a value of each, and dropped,
too. What is kept is never torn.

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
from collections.abc import Callable, Generator, Iterator, Mapping

import torch

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.live.state import BUFFER, LocalState, StateTensor
from trainctl.checkpoint.save.data_file import Entry
from trainctl.checkpoint.snapshot.copier import Copier, copier_of
from trainctl.checkpoint.snapshot.host_pool import HostBuffer
from trainctl.checkpoint.snapshot.samples import Samples
from trainctl.checkpoint.snapshot.stowage import Stowage, Stowed, room_of
from trainctl.core.system.deadline import Deadline

_TURN_S = 0.05


class Snapshot:
    """What is saved of a state, in a host buffer. One thread copies; whoever writes to the state waits for it.

    Args:
        state: the live tensors; nobody may write to them before the fence is passed. Their moment is now, in the order
            of what the calling thread has its devices do.
        stowage: what of them is saved, and where it goes.
        buffer: of at least its size, pinned for state on CUDA devices; touched until ``copy`` is back.
        copier: how chunks are copied; None: as the state's devices take it.
    """

    def __init__(
        self,
        state: LocalState,
        stowage: Stowage,
        buffer: HostBuffer,
        *,
        copier: Copier | None = None,
    ) -> None:
        self._copier = copier if copier is not None else copier_of(state)
        self._buffer = buffer  # its memory is pinned only as long as it lives
        self._state = state
        self._stowage = stowage
        self._room = room_of(buffer.bytes, stowage)
        self._lazy = [live for live, _ in self._saved(lazily=True)]
        self._versions = [live.changes for live in self._lazy]
        self._samples = Samples(self._lazy if self._copier.seen_by_host else ())
        self._lock = threading.Lock()
        self._wanted = True
        self._begun = self._copied = False
        self._handed_over = threading.Event()
        self._over = threading.Event()
        self._reason = self._cause = ""
        self._passed = threading.Event()
        with torch.no_grad():
            for live, stowed in self._saved(lazily=False):
                self._copy_tensor(live, stowed)
        self._copier.mark_moment()

    @property
    def data(self) -> Mapping[Entry, torch.Tensor]:
        """What to write, once the snapshot is whole and ``copy`` is back."""
        return dict(self._stowage.entries(self._state, self._room))

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
                    self._copied = self._copy_lazily(alive)
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
        deadline = Deadline(within_s)
        while not self._handed_over.wait(min(_TURN_S, deadline.left_s)) and not deadline.over:
            alive()
        if not self._handed_over.is_set():
            with self._lock:
                self._wanted = False
        if self._copied:
            self._copier.hold_back()
        elif self._begun:
            self._over.wait()  # for the chunks that are being copied
        versions = zip(self._lazy, self._versions, strict=True)
        changed = [live.key for live, version in versions if live.changes != version]
        if not self._copied and not self._reason:
            self._cause = "late_copy"
            self._reason = f"the next change of the state was due, and {within_s:.2f} s later the copy was not whole"
        elif first := changed[0] if changed else self._samples.changed():
            self._cause = "changed_state"
            how = "" if changed else ", by what torch does not count (.data, NumPy, a foreign kernel)"
            self._reason = (
                f"{first} was changed before the snapshot's fence was passed{how}: whoever writes to registered state "
                "has to pass it first"
            )
        self._passed.set()
        return self.whole

    def settled(self, within_s: float) -> bool:
        """Whether the fence was passed, after at most so long: from then on ``reason`` stays as it is."""
        return self._passed.wait(within_s)

    def _saved(self, *, lazily: bool) -> Iterator[tuple[StateTensor, Stowed]]:
        """Tensors of which something is saved: those that change in the optimizer step only, or the others."""
        for live, stowed in zip(self._state.tensors, self._stowage.tensors, strict=True):
            if stowed.entries and (live.key.kind != BUFFER) is lazily:
                yield live, stowed

    def _copy_lazily(self, alive: Callable[[], None]) -> bool:
        for live, stowed in self._saved(lazily=True):
            alive()
            if not self._copy_tensor(live, stowed):
                return False
        return True

    def _copy_tensor(self, live: StateTensor, stowed: Stowed) -> bool:
        memory, room = live.tensor.detach().reshape(-1), self._room[live.key.dtype]
        for chunk in stowed.chunks:
            if not self._wanted:
                return False
            self._copier.put(chunk.into(room), chunk.of(memory))
        return self._wanted

    @contextlib.contextmanager
    def _noting(self) -> Generator[None, None, None]:
        try:
            yield
        except BaseException as error:
            if not self._reason:  # what failed first is why
                self._reason, self._cause = f"copying failed: {error}", "other"
            raise
