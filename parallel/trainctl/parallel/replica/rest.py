"""What belongs to the last committed step beside tensors: to be put back when a step is given up, and watched."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from trainctl.parallel.replica.training_state import TrainingState


class Rest:
    """Remembers the registered objects as they were when a step was committed, and how often tensors were written.

    Objects may be changed in a step: if it is repeated they are put back. Modules may not: copying them in every step
    would cost too much, so what changes them comes after the step (``TrainingState.after_step``); a change elsewhere
    is only found.

    Args:
        training: as it is now.
        hyperparameters: what the parameter groups say belongs to it, too.
        watch_tensors: count writes; not where a model that shards itself writes its tensors anew in every pass.
    """

    def __init__(self, training: TrainingState, *, hyperparameters: bool, watch_tensors: bool) -> None:
        self._training = training
        self._hyperparameters = hyperparameters
        self._values = copy.deepcopy(training.export_objects(hyperparameters=hyperparameters))
        self._watch_tensors = watch_tensors
        self._writes: dict[str, int] = {}
        self.note_writes()

    def put_back(self) -> None:
        """The objects are again what they were."""
        values: Mapping[str, Any] = copy.deepcopy(self._values)
        self._training.import_objects(values, hyperparameters=self._hyperparameters)

    def note_writes(self) -> None:
        """Changes of modules count from here."""
        self._writes = dict(_writes(self._training)) if self._watch_tensors else {}

    def changed_objects(self) -> list[str]:
        """Names of registered objects and schedulers that are no longer what they were."""
        now = self._training.export_objects(hyperparameters=False)
        return [name for name, value in now.items() if value != self._values[name]]

    def changed_modules(self) -> list[str]:
        """Names of modules whose tensors were written since; ``model`` for buffers of the model."""
        if not self._watch_tensors:
            return []
        return [name for name, writes in _writes(self._training) if writes != self._writes[name]]


def _writes(training: TrainingState) -> Iterator[tuple[str, int]]:
    """How often the tensors of each further module, and the buffers of the model, were written."""
    yield "model", sum(map(_version, _saved_buffers(training.model)))
    for name, module in training.modules.items():
        yield name, sum(map(_version, (*module.parameters(), *_saved_buffers(module))))


def _saved_buffers(module: nn.Module) -> Iterator[Tensor]:
    """Buffers that are part of the state; others are a model's own cache."""
    for part in module.modules():
        # torch has no public way to ask which buffers these are.
        passing = part._non_persistent_buffers_set  # pyright: ignore[reportPrivateUsage]
        for name, buffer in part._buffers.items():  # pyright: ignore[reportPrivateUsage]
            if buffer is not None and name not in passing:
                yield buffer


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else int(tensor._version)
