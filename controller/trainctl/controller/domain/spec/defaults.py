"""Defaults that depend on other fields, resolved: what ``get -o yaml`` shows as the effective spec."""

from __future__ import annotations

from dataclasses import replace

from trainctl.core.records.spec import TrainJob
from trainctl.core.timeouts import Timeouts
from trainctl.parallel.plan.model_size import ffn_size, kv_head_count
from trainctl.parallel.plan.task_rules import LLAMA


def effective(job: TrainJob) -> TrainJob:
    """The same job with every default written out. Applying it twice changes nothing."""
    spec = job.spec
    model = spec.train.model
    if spec.train.task == LLAMA:
        model = replace(model, kv_heads=kv_head_count(model), ffn=ffn_size(model))
    wait = spec.recovery.replacement_wait or f"{Timeouts.for_profile(spec.recovery.profile).replacement_wait_s:g}s"
    changed = replace(
        spec,
        train=spec.train if spec.command else replace(spec.train, model=model),
        nodes=replace(spec.nodes, target=spec.nodes.target or spec.nodes.max),
        recovery=replace(spec.recovery, replacement_wait=wait),
    )
    return replace(job, spec=changed)
