"""A task of the user's own: ``module:callable`` that builds model, data and loss."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.core.errors import Problem, SpecError
from trainctl.core.plain import is_mapping, is_tuple
from trainctl.parallel.tasks.task import Loss, TaskContext, TaskParts
from trainctl.parallel.user_callable import load_callable

FIELD = "spec.train.task"


class UserTask:
    """Implements ``Task`` with a function of the user's own.

    Args:
        path: ``module:callable``; it gets a ``TaskContext`` and returns ``TaskParts``.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def build(self, context: TaskContext) -> TaskParts:
        """What the function returns; what it raises passes through as it is.

        Raises:
            SpecError: it is not there, cannot be called with a context, or returned something else; all fields at once.
        """
        make = load_callable(self._path, field=FIELD)
        _check_signature(make, self._path)
        parts = make(context)
        if not isinstance(parts, TaskParts):
            expected = f"{TaskParts.__module__}.{TaskParts.__name__}"
            raise _wrong([f"expected {self._path} to return {expected}, found {_kind(parts)}"])
        if problems := [f"{self._path} returned TaskParts with {text}" for text in _problems(parts)]:
            raise _wrong(problems)
        return dataclasses.replace(parts, loss=CheckedLoss(parts.loss, self._path))


class CheckedLoss:
    """A loss of the user's own, which says what is wrong with what it returns."""

    def __init__(self, loss: Loss, path: str) -> None:
        self._loss = loss
        self._path = path

    def __call__(self, batch: Any) -> tuple[Tensor, int]:
        """As ``Loss``.

        Raises:
            SpecError: it did not return a scalar and a number.
        """
        result = self._loss(batch)
        if problem := _loss_problem(result):
            raise _wrong([f"expected the loss of {self._path} to return (summed loss, number of targets), {problem}"])
        return result


def _loss_problem(result: object) -> str:
    pair = result if is_tuple(result) else ()
    if len(pair) != 2:
        return f"found {_kind(result)}"
    loss_sum, targets = pair
    if not isinstance(loss_sum, Tensor) or loss_sum.dim() != 0:
        shape = f" of shape {list(loss_sum.shape)}" if isinstance(loss_sum, Tensor) else ""
        return f"found {_kind(loss_sum)}{shape} as the loss; sum it over all targets"
    if torch.is_grad_enabled() and not loss_sum.requires_grad:
        return "found a loss without a graph: it has to depend on the model's parameters"
    if not isinstance(targets, int) or isinstance(targets, bool) or targets < 0:
        return f"found {_kind(targets)} as the number of targets; it has to be a whole number"
    return ""


def _problems(parts: TaskParts) -> Iterator[str]:
    yield from _model(parts.model)
    yield from _dataset("dataset", parts.dataset)
    if parts.eval_dataset is not None:
        yield from _dataset("eval_dataset", parts.eval_dataset)
    if not callable(parts.loss):
        yield f"loss: expected a function of a batch, found {_kind(parts.loss)}"
    if parts.evaluation is not None and not (
        callable(parts.evaluation) and _is_count(getattr(parts.evaluation, "num_items", None))
    ):
        yield f"evaluation: expected a function of an item with num_items, found {_kind(parts.evaluation)}"
    if parts.optimizer is not None:
        yield from _of_kind(torch.optim.Optimizer, "optimizer", "a torch.optim.Optimizer", parts.optimizer)
    yield from _artifacts(parts.artifacts)
    yield from _of_kind(str, "data_digest", "a text", parts.data_digest)


def _of_kind(kind: type, name: str, wanted: str, found: object) -> Iterator[str]:
    if not isinstance(found, kind):
        yield f"{name}: expected {wanted}, found {_kind(found)}"


def _model(found: object) -> Iterator[str]:
    if not isinstance(found, nn.Module):
        yield f"model: expected a torch.nn.Module, found {_kind(found)}"
    elif not any(parameter.requires_grad for parameter in found.parameters()):
        yield "model: expected parameters to train, found none that require gradients"


def _dataset(name: str, found: object) -> Iterator[str]:
    samples = getattr(found, "num_samples", None)
    if not _is_count(samples):
        yield f"{name}: expected num_samples of at least 1, found {_kind(found)} with num_samples {samples!r}"
    if not callable(getattr(found, "batch", None)):
        yield f"{name}: expected a method batch(sample_ids), found {_kind(found)} without one"


def _artifacts(files: object) -> Iterator[str]:
    if not is_mapping(files):
        yield f"artifacts: expected files by name, found {_kind(files)}"
        return
    for name, content in files.items():
        if not isinstance(name, str) or not isinstance(content, bytes):
            yield f"artifacts: expected bytes by file name, found {_kind(content)} under {name!r}"


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _check_signature(make: Callable[..., Any], path: str) -> None:
    try:
        inspect.signature(make).bind(None)
    except TypeError as error:
        raise _wrong([f"expected {path} to take one argument, the TaskContext: {error}"]) from error
    except ValueError:  # built in: it has no signature to look at
        return


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__


def _wrong(messages: list[str]) -> SpecError:
    return SpecError(
        tuple(Problem(path=FIELD, message=message) for message in messages),
        source="task",
        hint="docs/howto/models.md shows a task of one's own",
    )
