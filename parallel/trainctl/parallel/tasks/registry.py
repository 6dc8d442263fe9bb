"""Tasks by name."""

from __future__ import annotations

from trainctl.core.errors import Problem, SpecError
from trainctl.core.import_paths import is_import_path
from trainctl.core.records.train_spec import TrainSpec
from trainctl.parallel.plan.data_rules import data_problems, tokenizer_problems
from trainctl.parallel.plan.optimizer_rules import optimizer_problems
from trainctl.parallel.plan.task_rules import HF_CAUSAL_LM, LLAMA, task_problems
from trainctl.parallel.tasks.hf_causal_lm import HfCausalLmTask
from trainctl.parallel.tasks.llama import LlamaTask
from trainctl.parallel.tasks.task import Task
from trainctl.parallel.tasks.user_task import UserTask

PRECISIONS = ("auto", "float32", "float64")


def find_task(name: str) -> Task:
    """The built-in task with this name, or the user's own at ``module:callable``; not loaded yet.

    Raises:
        SpecError: there is none.
    """
    if name == LLAMA:
        return LlamaTask()
    if name == HF_CAUSAL_LM:
        return HfCausalLmTask()
    if is_import_path(name):
        return UserTask(name)
    raise SpecError(task_problems(TrainSpec(task=name)), source="task")


def check(spec: TrainSpec) -> None:
    """Looks for everything wrong with ``spec.train`` that shows without data and devices.

    Raises:
        SpecError: lists all problems.
    """
    problems = task_problems(spec) + data_problems(spec.data) + tokenizer_problems(spec.tokenizer)
    if spec.precision not in PRECISIONS:
        message = f"expected one of {', '.join(PRECISIONS)}, found {spec.precision!r}"
        problems += (Problem(path="spec.train.precision", message=message),)
    problems += optimizer_problems(spec.optimizer)
    if problems:
        raise SpecError(problems, source="spec.train")
