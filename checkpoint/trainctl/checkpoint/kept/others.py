"""What else than our checkpoints lies in a folder: one of another program can be imported, the rest is foreign."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch

from trainctl.checkpoint.manifest.names import is_attempt, step_folder, step_of
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.errors import CheckpointError

_IMPORTED = (".metadata", "*.distcp", "*.safetensors", "*.safetensors.index.json")
"""What ``importing`` reads."""
_PICKLED = ("*.pt", "*.pth", "*.bin", "*.ckpt", "*.pkl")
"""Of ``torch.save``."""


def about_file(path: str) -> str:
    """What to do with a file that was named where a folder is expected, such as ``model.safetensors``."""
    folder, _, name = path.rpartition("/")
    if any(fnmatch(name, pattern) for pattern in _IMPORTED):
        return f"make a checkpoint of it, with its folder: trainctl checkpoints import {folder or '/'} TARGET"
    if any(fnmatch(name, pattern) for pattern in _PICKLED):
        return (
            "such a file can execute code and is not read; save its tensors with safetensors.torch.save_file as "
            "model.safetensors, and import the folder"
        )
    return "name the folder that it is in"


def steps_in(storage: Storage) -> Sequence[str]:
    """Names of the folders of steps; none where the folder is empty, or has only what is hidden.

    Raises:
        CheckpointError: there are none, but something else.
    """
    entries = storage.list("")
    steps = [name for name in entries if step_of(name) is not None]
    others = [name for name in entries if any(fnmatch(name, pattern) for pattern in _IMPORTED)]
    shown = [name for name in entries if not name.startswith(".")]
    if not steps and (others or shown):
        raise _not_ours(storage.uri, others, shown)
    return steps


def _not_ours(uri: str, others: Sequence[str], shown: Sequence[str]) -> CheckpointError:
    expected = f"expected folders such as {step_folder(100)}"
    above = uri.rpartition("/")[0]
    if is_attempt(above.rpartition("/")[2]):
        return CheckpointError(
            f"{uri} is inside of a checkpoint: {expected}, found {', '.join(shown[:5])}",
            hint=f"name the checkpoint itself: {above}",
        )
    if others:
        return CheckpointError(
            f"{uri} is of another format: {expected}, found {', '.join(others[:5])}",
            hint=f"make a checkpoint of it: trainctl checkpoints import {uri} TARGET",
        )
    return CheckpointError(
        f"{uri} is foreign: {expected}, found {', '.join(shown[:5])}",
        hint="name the folder that a job saves its checkpoints to, or an empty one",
    )
