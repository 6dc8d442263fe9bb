"""What a member of a generation works with; thrown away as a whole when the generation is left."""

from __future__ import annotations

import time

from trainctl.core.records.worker import RecoveryReport
from trainctl.parallel.bridge import Recovered
from trainctl.parallel.recovery.membership import Membership
from trainctl.parallel.replica.replica import Replica
from trainctl.parallel.session.ballot_box import BallotBox
from trainctl.parallel.session.reducer import GradientReducer
from trainctl.parallel.session.saves import Saves
from trainctl.parallel.session.worker_context import WorkerContext


class Seat:
    """A place in a generation, with the communication buffers that belong to its group.

    Attributes:
        membership: how the generation was entered.
        record: the decision that made it.
        group: its ranks.
        reducer: sums gradients over the group.
        ballots: collects votes over the group.
        saves: checkpoints on their way.
        snapshots: snapshots on their way to the memory of nodes; None if none are made.
    """

    def __init__(
        self,
        membership: Membership,
        replica: Replica,
        context: WorkerContext,
        saves: Saves,
        snapshots: Saves | None = None,
    ) -> None:
        self.membership = membership
        self.record = membership.record
        self.group = membership.group
        self.reducer = GradientReducer(replica.gradients, membership.group)
        self.ballots = BallotBox(membership.group, num_groups=replica.gradients.num_groups, reach=context.where.reach)
        self.saves = saves
        self.snapshots = snapshots
        self._context = context
        self._entered_s = time.monotonic()
        self._reported = False

    @property
    def all_saves(self) -> tuple[Saves, ...]:
        """Everything that reads the state beside the training."""
        return (self.saves,) if self.snapshots is None else (self.saves, self.snapshots)

    def report_recovery(self) -> None:
        """Tells, once, how the generation was entered and how long it took until now: the first commit, or the end."""
        if self._reported:
            return
        self._reported = True
        done, record = self.membership, self.record
        report = RecoveryReport(
            job_uid=record.job_uid,
            island=record.island,
            generation=record.generation,
            global_rank=self.group.rank,
            slot=self._context.desired.slot,
            rebuild_s=done.rebuild_s,
            restore_s=done.restore_s,
            first_step_s=time.monotonic() - self._entered_s,
            received_bytes=done.received_bytes,
            applied_open_step=done.applied_open_step,
            load=done.load,
        )
        self._context.control.send(Recovered(report))
