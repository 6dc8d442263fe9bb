"""What modules keep beside their parameters and buffers (``get_extra_state``), as one object of JSON values.

``nn.Module.state_dict`` has it under ``<module>._extra_state``. A tensor there is a new one at every call, so it cannot
be filled in place as those of the state are: it goes with the other values.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trainctl.checkpoint.tensors import byte_view, dtype_name, dtype_of
from trainctl.core.errors import PlanError
from trainctl.core.texts import listed

NAME = "extra state"
"""Of this object among those that are registered."""
_KEY = "_extra_state"
_TENSOR = "$tensor"
_PLAIN = (bool, int, float, str, type(None))


def is_extra_state(fqn: str) -> bool:
    """Whether a name of ``state_dict`` is that of a module's extra state."""
    return fqn.rpartition(".")[2] == _KEY


class ExtraState:
    """That of some modules; false where none of them keeps any.

    Args:
        modules: by the prefix of their names.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._keepers = {
            f"{prefix}{name}": part
            for prefix, module in modules.items()
            for name, part in module.named_modules()
            if type(part).get_extra_state is not nn.Module.get_extra_state
        }

    def __bool__(self) -> bool:
        return bool(self._keepers)

    def state_dict(self) -> dict[str, Any]:
        """By the names of the modules.

        Raises:
            PlanError: one holds something else than tensors and JSON values; names the module.
        """
        return {name: _encoded(part.get_extra_state(), name) for name, part in self._keepers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state_dict`` gave.

        Raises:
            PlanError: it is of other modules.
        """
        if set(state) != set(self._keepers):
            raise PlanError(
                f"expected extra state of these modules: {listed(self._keepers)}; found it of: {listed(state)}",
                hint="build the model as it was when it was saved",
            )
        for name, part in self._keepers.items():
            part.set_extra_state(_decoded(state[name]))


def _encoded(value: Any, module: str) -> Any:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return {_TENSOR: [dtype_name(value.dtype), list(value.shape), base64.b64encode(byte_view(flat)).decode()]}
    if isinstance(value, Mapping) and all(isinstance(key, str) and key != _TENSOR for key in value):
        return {key: _encoded(item, module) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encoded(item, module) for item in value]
    if isinstance(value, _PLAIN):
        return value
    raise PlanError(
        f"expected tensors, numbers and texts in the extra state of module {module!r}, found {type(value).__name__}",
        hint="let its get_extra_state give these, in lists and in dicts by str",
    )


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    if value.keys() == {_TENSOR}:
        dtype, shape, text = value[_TENSOR]
        found = torch.empty(shape, dtype=dtype_of(dtype))
        byte_view(found.reshape(-1))[:] = base64.b64decode(text)
        return found
    return {key: _decoded(item) for key, item in value.items()}
