"""The built-in tasks by name."""

from __future__ import annotations

from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.plan.optimizer_rules import optimizer_problems
from trainctl.parallel.tasks.llama import LlamaTask
from trainctl.parallel.tasks.task import Task

TASK_NAMES = ("llama",)
PRECISIONS = ("auto", "float32", "float64")


def find_task(name: str) -> Task:
    """The task with this name.

    Raises:
        SpecError: there is none.
    """
    if name == "llama":
        return LlamaTask()
    message = f"expected one of {', '.join(TASK_NAMES)}, found {name!r}"
    raise SpecError((Problem(path="spec.train.task", message=message),), source="task")


def check(spec: TrainSpec) -> None:
    """Looks for everything wrong with ``spec.train`` that shows without data and devices.

    Raises:
        SpecError: lists all problems.
    """
    problems = find_task(spec.task).check(spec)
    if spec.precision not in PRECISIONS:
        message = f"expected one of {', '.join(PRECISIONS)}, found {spec.precision!r}"
        problems += (Problem(path="spec.train.precision", message=message),)
    problems += optimizer_problems(spec.optimizer)
    if problems:
        raise SpecError(problems, source="spec.train")
