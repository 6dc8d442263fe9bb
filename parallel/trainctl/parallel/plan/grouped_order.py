"""An order for samples that are cheap to read together: what stands close in the stream lies close in the corpus.

Neighbouring sample ids share a group of records that has to be read and tokenised as a whole. So the samples are cut
into runs of neighbours; the runs, not the samples, are permuted over the epoch, and only a few runs are open at a time.
A batch is divided into lanes, each with runs of its own, so that a rank, which owns some of the micro-batches, reads
the runs of its lanes and not those of everybody. All is computed from the position; nothing depends on the ranks.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.plan.randomness import derive_seed
from trainctl.parallel.plan.sample_order import permute

OPEN_RUNS = 2
"""Runs that a lane mixes."""


@dataclass(frozen=True, slots=True)
class GroupedOrder:
    """The endless stream of samples; every epoch has each exactly once.

    Attributes:
        num_samples: samples in an epoch.
        seed: of the run.
        run: neighbouring samples that stay together; a multiple of ``lane_width``.
        lanes: parts of a batch with runs of their own.
        lane_width: samples of a lane in a batch.
    """

    num_samples: int
    seed: int
    run: int
    lanes: int
    lane_width: int

    @classmethod
    def of(
        cls, num_samples: int, *, seed: int, batch: BatchSpec, group_samples: int, most_lanes: int = 8
    ) -> GroupedOrder:
        """An order whose runs are about as long as a group, with as many lanes as whole micro-batches allow."""
        lanes = max(n for n in range(1, most_lanes + 1) if batch.micro_batches % n == 0 and batch.sequences % n == 0)
        lane_width = batch.sequences // lanes
        return cls(num_samples, seed, max(1, group_samples // lane_width) * lane_width, lanes, lane_width)

    def ids(self, position: int, count: int) -> tuple[int, ...]:
        """The samples at ``position`` to ``position + count - 1``; positions run through the epochs."""
        return tuple(self._id(*divmod(place, self.num_samples)) for place in range(position, position + count))

    def _id(self, epoch: int, index: int) -> int:
        key = derive_seed(self.seed, epoch)
        num_runs = self.num_samples // self.run
        in_lane = num_runs // self.lanes * self.run
        if index >= in_lane * self.lanes:
            return self._closing_id(index - in_lane * self.lanes, key)
        turn, place = divmod(index, self.lanes * self.lane_width)
        lane, column = divmod(place, self.lane_width)
        window, offset = divmod(turn * self.lane_width + column, OPEN_RUNS * self.run)
        start = window * OPEN_RUNS * self.run
        size = min(OPEN_RUNS * self.run, in_lane - start)
        run, offset = divmod(start + permute(offset, size, derive_seed(key, lane, window)), self.run)
        return permute(run * self.lanes + lane, num_runs, key) * self.run + offset

    def _closing_id(self, index: int, key: int) -> int:
        """Runs that cannot be dealt evenly to the lanes, and samples that fill no run, end the epoch."""
        num_runs = self.num_samples // self.run
        dealt_runs = num_runs // self.lanes * self.lanes
        index = permute(index, self.num_samples - dealt_runs * self.run, derive_seed(key, self.lanes))
        run, offset = divmod(index, self.run)
        if dealt_runs + run < num_runs:
            return permute(dealt_runs + run, num_runs, key) * self.run + offset
        return num_runs * self.run + index - (num_runs - dealt_runs) * self.run
