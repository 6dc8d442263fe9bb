"""Reads the safetensors files of a Hugging Face folder into a model of ours that has the same names."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainctl.core.errors import CheckpointError, PlanError
from trainctl.parallel.models.hf_folder import HfFolder

_IGNORED = ("rotary_emb.inv_freq",)
"""Old folders hold these, too; they follow from the config."""
_LISTED = 5


class _Tensors(Protocol):
    """What is used of an open file of safetensors, which has no types of its own."""

    def keys(self) -> list[str]: ...

    def get_slice(self, name: str) -> Any: ...

    def get_tensor(self, name: str) -> Tensor: ...


@torch.no_grad()
def load_weights(model: nn.Module, folder: HfFolder) -> None:
    """Fills the model's parameters and persistent buffers; floating-point dtypes are cast.

    Every tensor of the model has to be there (one that is tied: under one of its names), and no other.

    Raises:
        CheckpointError: a file is damaged.
        PlanError: names or shapes differ; lists all of it, and the model is as it was.
    """
    wanted = model.state_dict(keep_vars=True)
    found: dict[str, str] = {}
    differences: list[str] = []
    for file in folder.weight_files:
        with _opened(folder, file) as tensors:
            for name in tensors.keys():  # noqa: SIM118  (no dict)
                if name.endswith(_IGNORED):
                    continue
                found[name] = file
                shape: tuple[int, ...] = tuple(tensors.get_slice(name).get_shape())
                if name not in wanted:
                    differences.append(f"{name}: in the folder, but not in the model")
                elif shape != tuple(wanted[name].shape):
                    differences.append(f"{name}: expected shape {list(wanted[name].shape)}, found {list(shape)}")
    covered = {id(wanted[name]) for name in found if name in wanted}
    differences += [f"{name}: not in the folder" for name, tensor in wanted.items() if id(tensor) not in covered]
    if differences:
        shown = differences[:_LISTED] + [f"and {len(differences) - _LISTED} more"] * (len(differences) > _LISTED)
        raise PlanError(
            "\n".join([f"the weights in {folder.path} do not fit the model:", *shown]),
            hint="compare spec.train.model with the folder's config.json, or set weights: random",
        )
    for file in folder.weight_files:
        with _opened(folder, file) as tensors:
            for name in (name for name, holder in found.items() if holder == file):
                wanted[name].copy_(tensors.get_tensor(name))


def _opened(folder: HfFolder, file: str) -> AbstractContextManager[_Tensors]:
    try:
        return cast("AbstractContextManager[_Tensors]", safe_open(folder.path / file, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{folder.path / file}: expected a safetensors file, found: {error}",
            hint="fetch the folder again: it may have been copied in part",
        ) from error
