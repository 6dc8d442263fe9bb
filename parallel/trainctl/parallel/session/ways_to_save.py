"""What a member of a generation saves with: to the job's storage, and to the memory of the nodes."""

from __future__ import annotations

import functools
from collections.abc import Callable

from trainctl.core.errors import InternalError
from trainctl.core.records.generation import Member
from trainctl.parallel.bridge import Snapshotted
from trainctl.parallel.collectives.port import Collectives, Rendezvous
from trainctl.parallel.recovery.membership import Membership
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.checkpoints import Checkpoints
from trainctl.parallel.session.memory_place import MemoryPlace
from trainctl.parallel.session.places import StoragePlace
from trainctl.parallel.session.reporter import Reporter
from trainctl.parallel.session.saves import Saves
from trainctl.parallel.session.sealing import Sealer
from trainctl.parallel.session.worker_context import WorkerContext
from trainctl.parallel.transfers import TransferBoard, unshown


def storage_saves(
    checkpoints: Checkpoints,
    replica: Replica,
    membership: Membership,
    context: WorkerContext,
    *,
    reporter: Reporter,
    notice: Callable[[str], None],
) -> Saves:
    """Checkpoints on the job's storage."""
    record, group = membership.record, membership.group
    sealer = Sealer(checkpoints=checkpoints, record=record, settle=reporter.settle, report=reporter.note_checkpoint)
    return Saves(
        StoragePlace(checkpoints=checkpoints, replica=replica, sealer=sealer, rank=group.rank),
        checkpoints.pool,
        checkpoints.manners,
        replica,
        record,
        group,
        waiter=context.waiter,
        background=checkpoints.spec.background,
        saved_step=max(record.checkpointed_step, record.checkpoint.step if record.checkpoint else -1),
        notice=notice,
        transfers=context.transfers,
    )


def memory_saves(
    checkpoints: Checkpoints,
    replica: Replica,
    membership: Membership,
    context: WorkerContext,
    *,
    host_collectives: Collectives,
    notice: Callable[[str], None],
) -> Saves | None:
    """Snapshots in the memory of the nodes; None if the job wants none.

    Args:
        checkpoints: how the job saves.
        replica: what is saved.
        membership: of the generation.
        context: of the worker.
        host_collectives: between host memories; make the group that copies go over beside the training.
        notice: tells people what goes wrong.
    """
    if not checkpoints.spec.snapshots.wanted:
        return None
    record, group = membership.record, membership.group
    own = record.member(group.rank)
    if own is None:
        raise InternalError(f"generation {record.generation}: rank {group.rank} is not told of itself")
    rendezvous = _of_copies(membership, own, timeout_s=context.waiter.timeout_s)
    place = MemoryPlace(
        context.memory,
        node=own.node,
        wanted_in=checkpoints.spec.snapshots.place,
        failure_domain=context.failure_domain,
        group=group,
        waiter=context.waiter,
        connect=functools.partial(host_collectives.connect, rendezvous),
        faults=context.faults,
        notice=notice,
        told=lambda made: context.control.send(Snapshotted(made)),
        generation=record.generation,
    )
    return Saves(
        place,
        checkpoints.snapshot_pool,
        checkpoints.snapshot_manners,
        replica,
        record,
        group,
        waiter=context.waiter,
        background=True,
        saved_step=record.snapshot.step if record.snapshot is not None else -1,
        notice=notice,
        # Snapshots come often, take moments, and are no checkpoints: people are shown only their loads.
        transfers=TransferBoard(unshown),
    )


def _of_copies(membership: Membership, own: Member, *, timeout_s: float) -> Rendezvous:
    """Where the group meets that copies parts from node to node."""
    record, group = membership.record, membership.group
    return Rendezvous(
        store_address=record.store_address,
        prefix=f"{record.store_prefix}/snapshots",
        rank=group.rank,
        size=group.size,
        address=own.address,
        timeout_s=timeout_s,
    )
