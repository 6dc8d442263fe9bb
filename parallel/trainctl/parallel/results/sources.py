"""Which hooks a job has: checked on every worker before it trains, made only where they run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from trainctl.core.errors import Problem, SpecError
from trainctl.core.records.spec import ResultsSpec
from trainctl.parallel.results.delivered import Delivered, DeliveredFile, Forgetful
from trainctl.parallel.results.hook import Hook
from trainctl.parallel.results.steps_file import StepsFile
from trainctl.parallel.user_code import UserCodeError, load

JSONL = "jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSource:
    """A hook that is not made yet.

    Attributes:
        name: for messages, and for the file that says how far it came.
        make: makes it.
        ledger: whether it has to be written down for it how far it came.
    """

    name: str
    make: Callable[[], Hook]
    ledger: bool = True

    def delivered(self, records: str) -> Delivered:
        """Where it is written down how far it came."""
        return DeliveredFile(records, self.name.replace(":", ".")) if self.ledger and records else Forgetful()


def hooks_of(results: ResultsSpec, *, records: str) -> tuple[HookSource, ...]:
    """The hooks that ``spec.results`` asks for.

    Args:
        results: of the job.
        records: folder or URI of the job's records; empty where there are none, and then nothing is written.

    Raises:
        SpecError: a library is not installed, or a hook of the user's own cannot be used; all problems at once.
    """
    problems = list(_missing_libraries(results))
    sources = list(_built_in(results)) if records and not problems else []
    for index, path in enumerate(results.hooks):
        try:
            sources.append(HookSource(name=_unused(path, sources), make=_hook_class(path)))
        except UserCodeError as error:
            problems.append(Problem(path=f"spec.results.hooks[{index}]", message=f"{path}: {error}"))
    if problems:
        raise SpecError(tuple(problems), source="spec.results")
    return tuple(sources)


def _built_in(results: ResultsSpec) -> Iterator[HookSource]:
    if results.jsonl:
        yield HookSource(name=JSONL, make=StepsFile, ledger=False)
    if results.tensorboard:
        from trainctl.parallel.results.tensorboard import TensorBoard

        yield HookSource(name="tensorboard", make=TensorBoard)
    if results.wandb.project:
        from trainctl.parallel.results.wandb import WeightsAndBiases

        yield HookSource(name="wandb", make=WeightsAndBiases)


def _missing_libraries(results: ResultsSpec) -> Iterator[Problem]:
    wanted = {
        "tensorboard": ("tensorboard", results.tensorboard),
        "wandb": ("wandb", bool(results.wandb.project)),
    }
    for extra, (module, needed) in wanted.items():
        if needed and importlib.util.find_spec(module) is None:
            yield Problem(
                path=f"spec.results.{extra}",
                message=f"{module} is not installed where the workers run; "
                f"pip install 'trainctl-orchestrator[{extra}]' there",
            )


def _hook_class(path: str) -> Callable[[], Hook]:
    found = load(path)
    if not (isinstance(found, type) and issubclass(found, Hook)):
        kind = f"class {found.__name__}" if isinstance(found, type) else type(found).__name__
        raise UserCodeError(f"expected a class derived from trainctl.parallel.results.Hook, found a {kind}")
    return found


def _unused(name: str, sources: Sequence[HookSource]) -> str:
    """The name, with a number if a hook of the same class is there already."""
    taken = {source.name for source in sources}
    numbered = (f"{name}-{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbered if each not in taken)
