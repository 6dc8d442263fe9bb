"""Fields that are taken for the sake of a later version: whoever sets one is told that this version ignores it."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter

from trainctl.core.records.spec import JobSpec, TrainJob

WITHOUT_EFFECT: Mapping[str, attrgetter[object]] = {
    "spec.image": attrgetter("image"),
    "spec.resources.acceleratorType": attrgetter("resources.accelerator_type"),
    "spec.scheduling.queue": attrgetter("scheduling.queue"),
    "spec.scheduling.priority": attrgetter("scheduling.priority"),
    "spec.recovery.allowApproximate": attrgetter("recovery.allow_approximate"),
}
"""Their places in the job file, and how to get at them."""


def no_effect(job: TrainJob) -> tuple[str, ...]:
    """A sentence for each of them that is set to something else than its default."""
    return tuple(
        f"{path} has no effect in this version" for path, of in WITHOUT_EFFECT.items() if of(job.spec) != of(JobSpec())
    )
