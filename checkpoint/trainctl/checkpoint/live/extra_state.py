"""What modules keep beside their parameters and buffers (``get_extra_state``), as one object of JSON values.

``nn.Module.state_dict`` has it under ``<module>._extra_state``. A tensor there is a new one at every call, so it cannot
be filled in place as those of the state are: it goes with the other values.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainctl.checkpoint.live.tensors import byte_view, dtype_name, dtype_of
from trainctl.core.errors import PlanError
from trainctl.core.plain import is_list, is_mapping, is_tuple
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
        self._keepers: dict[str, nn.Module] = {
            f"{prefix}{name}": part
            for prefix, module in modules.items()
            for name, part in _parts(module)
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


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return cast("Iterator[tuple[str, nn.Module]]", module.named_modules())  # torch does not say what it gives


def _encoded(value: Any, module: str) -> Any:
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return {_TENSOR: [dtype_name(value.dtype), list(value.shape), base64.b64encode(byte_view(flat)).decode()]}
    if is_mapping(value) and all(isinstance(key, str) and key != _TENSOR for key in value):
        return {key: _encoded(item, module) for key, item in value.items()}
    if is_list(value) or is_tuple(value):
        return [_encoded(item, module) for item in value]
    if isinstance(value, _PLAIN):
        return value
    raise PlanError(
        f"expected tensors, numbers and texts in the extra state of module {module!r}, found {type(value).__name__}",
        hint="let its get_extra_state give these, in lists and in dicts by str",
    )


def _decoded(value: Any) -> Any:
    if is_list(value):
        return [_decoded(item) for item in value]
    if not is_mapping(value):
        return value
    if set(value) == {_TENSOR}:
        dtype, shape, text = value[_TENSOR]
        found = torch.empty(shape, dtype=dtype_of(dtype))
        byte_view(found.reshape(-1))[:] = base64.b64decode(text)
        return found
    return {key: _decoded(item) for key, item in value.items()}
