"""A task that raises."""

from __future__ import annotations

from trainctl.parallel.tasks.task import TaskContext, TaskParts


def build(context: TaskContext) -> TaskParts:
    raise ValueError(context.options["missing"])
