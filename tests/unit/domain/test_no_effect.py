"""Without it somebody could give a job a priority, or a queue, and believe that it counts."""

from __future__ import annotations

import json
from typing import Any

from trainctl.controller.domain.spec import no_effect, parse_job
from trainctl.controller.domain.spec.no_effect import WITHOUT_EFFECT
from trainctl.controller.domain.submit import new_job
from trainctl.core.records.spec import TrainJob


def job(**spec: Any) -> TrainJob:
    return parse_job(json.dumps({"metadata": {"name": "a"}, "spec": spec}), source="job")


def test_a_job_that_sets_what_this_version_ignores_is_told_so_when_it_is_accepted() -> None:
    wanted = job(scheduling={"queue": "research", "priority": 5, "activeDeadline": "2h"})
    _, (accepted, *_) = new_job("u", wanted, workdir="w", now_s=0.0)
    assert accepted.message.split("; ")[1:] == [
        "spec.scheduling.queue has no effect in this version",
        "spec.scheduling.priority has no effect in this version",
    ]


def test_each_field_is_named_where_it_is_set_and_none_where_it_is_left_out_or_has_its_default() -> None:
    assert (
        no_effect(job()) == no_effect(job(scheduling={"queue": "default"}, recovery={"allowApproximate": False})) == ()
    )
    every = job(
        image="trainer:1",
        resources={"acceleratorType": "h200"},
        scheduling={"queue": "research", "priority": 5},
        recovery={"allowApproximate": True},
    )
    assert [text.split()[0] for text in no_effect(every)] == list(WITHOUT_EFFECT)
