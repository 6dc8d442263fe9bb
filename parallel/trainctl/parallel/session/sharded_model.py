"""A model that shards and communicates itself (FSDP2), kept alive through changes of its ranks.

It is built anew in every generation, over the ranks of that generation, and filled from a checkpoint. While the loop is
inside one of torch's collectives nobody can call it back, so connections are cut when a newer generation calls, and the
error that this raises in the loop is taken for the interruption that it is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from trainctl.core.records.worker import WorkerDesired
from trainctl.core.system.deadline import Deadline, comes_true
from trainctl.parallel.collectives.port import Rendezvous
from trainctl.parallel.collectives.torch_world import TorchWorld
from trainctl.parallel.replica.generators import seed_generators
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.replica.training_state import TrainingState
from trainctl.parallel.session.worker_context import WorkerContext

Build = Callable[[DeviceMesh], TrainingState]
"""Makes the initial state over a mesh; the same state whatever the size of the mesh."""

_TRANSPORT_WORDS = ("gloo", "NCCL", "Connection closed", "Connection reset", "process group")
_LOOK_EVERY_S = 0.02


class ShardedModel:
    """Builds the state in each generation, and gives it up at the end of it.

    Args:
        build: the user's.
        device: of this rank.
        replica: is filled.
        context: of the session.
    """

    def __init__(self, build: Build, device: torch.device, replica: Replica, context: WorkerContext) -> None:
        self._build = build
        self._device = device
        self._replica = replica
        self._context = context
        self._world: TorchWorld | None = None
        self._lock = threading.Lock()
        context.signs.assist(context.waiter.timeout_s)
        context.control.on_change(self._instructed)

    def enter(self, rendezvous: Rendezvous, seed: int) -> None:
        """Builds the initial state over the ranks of a generation.

        Raises:
            Interrupted, CollectiveError: as ``Waiter.wait``.
            PlanError: what was built cannot be trained this way.
        """
        world = TorchWorld.open(rendezvous, self._device, self._context.waiter)
        with self._lock:
            self._world = world
        seed_generators(seed)
        self._replica.install(self._build(world.mesh))
        self._context.waiter.check()

    def leave(self) -> None:
        """Leaves torch's process group; safe to repeat."""
        with self._lock:
            world, self._world = self._world, None
        if world is not None:
            world.close()

    def is_interruption(self, error: RuntimeError) -> bool:
        """Whether an error in the loop came from a lost rank: waits for the controller to say so, for a while."""
        if not isinstance(error, dist.DistError) and not any(word in str(error) for word in _TRANSPORT_WORDS):
            return False
        with self._lock:
            if self._world is not None:
                self._world.cut()  # the others must not wait for this rank
        return comes_true(self._is_called_away, Deadline(self._context.waiter.timeout_s), _LOOK_EVERY_S)

    def _is_called_away(self) -> bool:
        self._context.waiter.touch()
        return self._context.instructions.aborted() or self._context.instructions.stopping

    def _instructed(self, desired: WorkerDesired) -> None:
        """On the bridge's thread: a newer generation calls, so the loop must not wait for this one."""
        with self._lock:
            if self._world is not None and desired.generation > self._context.instructions.entered:
                self._world.cut()
