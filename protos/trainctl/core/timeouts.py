"""Every time-out of a job, derived from one word: ``recovery.profile``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import pairwise

from trainctl.core.errors import PlanError
from trainctl.core.records.spec import TrainJob
from trainctl.core.units import parse_duration_s

COMPILE_FACTOR = 10
"""A worker that compiles its model before it is ready (``spec.train.compile``) may take so much longer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds until somebody draws a conclusion; the order below is checked when one is made.

    Attributes:
        heartbeat_s: an agent reports at least this often.
        suspect_s: silence after which an agent is suspected; nothing happens to its workers yet.
        lost_s: silence after which an agent and its workers count as lost.
        hang_floor_s: a worker that did not touch its progress page for max(this, 3 steps) is frozen.
        collective_s: longest wait in one collective, and longest silence in a save, load or rebuild.
        prepare_s: a member that did not answer PREPARE by then is condemned.
        boot_s: a worker that did not become ready (or did not enter a committed generation) by then is replaced; a
            watched command has so long for its first sign of life.
        orphan_s: agents end their workers after so long without a controller; survivors hold their state so long.
        replacement_wait_s: how long to wait for a lost node's replacement before shrinking.
        settle_s: after a controller start, nobody is declared lost for silence that began earlier.
    """

    heartbeat_s: float
    suspect_s: float
    lost_s: float
    collective_s: float
    prepare_s: float
    boot_s: float
    orphan_s: float
    hang_floor_s: float
    replacement_wait_s: float
    settle_s: float

    def __post_init__(self) -> None:
        ordered = [f.name for f in fields(self)][:7]
        for smaller, larger in pairwise(ordered):
            low, high = getattr(self, smaller), getattr(self, larger)
            if not 0 < low < high:
                raise PlanError(
                    f"time-outs out of order: expected 0 < {smaller} < {larger}, found {low:g} s and {high:g} s"
                )
        if self.hang_floor_s <= self.suspect_s:
            raise PlanError(
                f"time-outs out of order: hang_floor_s ({self.hang_floor_s:g} s) must exceed suspect_s "
                f"({self.suspect_s:g} s), or a late heartbeat looks like a frozen worker"
            )

    def at_pace(self, heartbeat_s: float) -> Timeouts:
        """The same where agents report only every ``heartbeat_s`` seconds: one lost beat is no lost agent.

        What is known of workers comes with the beats, so it is no fresher.
        """
        if heartbeat_s <= self.heartbeat_s:
            return self
        suspect_s, lost_s = max(self.suspect_s, 1.5 * heartbeat_s), max(self.lost_s, 2.5 * heartbeat_s)
        return replace(self, suspect_s=suspect_s, lost_s=lost_s, hang_floor_s=max(self.hang_floor_s, lost_s))

    @classmethod
    def for_profile(cls, profile: str) -> Timeouts:
        """The time-outs of ``fast``, ``balanced`` or ``patient``.

        Raises:
            PlanError: there is no such profile.
        """
        try:
            return PROFILES[profile]
        except KeyError:
            raise PlanError(
                f"expected a recovery profile ({', '.join(PROFILES)}), found {profile!r}",
                hint="set spec.recovery.profile",
            ) from None

    @classmethod
    def for_job(cls, job: TrainJob) -> Timeouts:
        """The profile's time-outs with the job's own ``replacementWait``, if any; a model is compiled in longer."""
        recovery = job.spec.recovery
        return _timeouts_of(recovery.profile, recovery.replacement_wait, compiled=job.spec.train.compile)


@lru_cache(maxsize=256)  # asked for in every pass over every job
def _timeouts_of(profile: str, replacement_wait: str, *, compiled: bool) -> Timeouts:
    base = Timeouts.for_profile(profile)
    if compiled:
        boot_s = base.boot_s * COMPILE_FACTOR
        base = replace(base, boot_s=boot_s, orphan_s=max(base.orphan_s, 2 * boot_s))
    if not replacement_wait:
        return base
    return replace(base, replacement_wait_s=parse_duration_s(replacement_wait))


PROFILES: Mapping[str, Timeouts] = {
    "fast": Timeouts(
        heartbeat_s=0.25,
        suspect_s=1.0,
        lost_s=3.0,
        hang_floor_s=3.0,
        collective_s=20.0,
        prepare_s=25.0,
        boot_s=60.0,
        orphan_s=120.0,
        replacement_wait_s=5.0,
        settle_s=1.0,
    ),
    "balanced": Timeouts(
        heartbeat_s=1.0,
        suspect_s=3.0,
        lost_s=10.0,
        hang_floor_s=10.0,
        collective_s=60.0,
        prepare_s=75.0,
        boot_s=180.0,
        orphan_s=600.0,
        replacement_wait_s=30.0,
        settle_s=3.0,
    ),
    "patient": Timeouts(
        heartbeat_s=5.0,
        suspect_s=15.0,
        lost_s=60.0,
        hang_floor_s=60.0,
        collective_s=600.0,
        prepare_s=660.0,
        boot_s=1200.0,
        orphan_s=3600.0,
        replacement_wait_s=600.0,
        settle_s=15.0,
    ),
}
