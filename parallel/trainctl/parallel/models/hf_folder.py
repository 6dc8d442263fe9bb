"""A Hugging Face folder as it lies on the disk: its ``config.json`` and which files hold the weights. Without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainctl.core.errors import Problem
from trainctl.core.json_text import NoJsonError, read_object
from trainctl.core.plain import is_mapping
from trainctl.core.records.train_spec import ModelSpec

CONFIG = "config.json"
PATH = "spec.train.model.path"
FOLDER_HINT = "correct the job file, or that folder: every node needs the same one"
_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_MOST_BYTES = 128 << 20
"""Of one of its JSON files: the index of a model with a hundred thousand tensors has some 10 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HfFolder:
    """A folder that was looked at.

    Attributes:
        path: of the folder.
        config: content of ``config.json``.
        weight_files: names of the safetensors files to begin with; empty: the weights are random.
    """

    path: Path
    config: Mapping[str, Any]
    weight_files: tuple[str, ...]


def open_folder(model: ModelSpec) -> tuple[HfFolder | None, tuple[Problem, ...]]:
    """The folder that ``model.path`` names, or what is wrong with it."""
    try:
        return _open(model)
    except OSError as error:  # to look whether a file is there takes permission, too
        return None, (_problem(f"{error.filename or model.path[:100]} cannot be read: {error.strerror}"),)


def _open(model: ModelSpec) -> tuple[HfFolder | None, tuple[Problem, ...]]:
    path = Path(model.path)
    if not path.is_absolute():
        return None, (
            _problem(
                f'expected the absolute path of a folder with {CONFIG}, found "{model.path[:100]}"; nothing is '
                "downloaded: fetch a model of the hub first (hf download NAME --local-dir DIR) and name that folder"
            ),
        )
    if not path.is_dir():
        return None, (
            _problem(f"{path} is not a folder" if path.exists() else f"{path} does not exist on this machine"),
        )
    config, problems = _read_json(path / CONFIG)
    if not problems and not isinstance(config.get("model_type"), str):
        problems = (_problem(f"{path / CONFIG} has no model_type; is it a model of transformers?"),)
    files, wrong = _weight_files(path, model.weights)
    if problems or wrong:
        return None, (*problems, *wrong)
    return HfFolder(path=path, config=config, weight_files=files), ()


def _weight_files(path: Path, wanted: str) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    if wanted == "random":
        return (), ()
    files, problems = _safetensors(path)
    if files or problems:
        return files, problems
    pickles = [name for name in _PICKLES if (path / name).exists()]
    if pickles:
        message = (
            f"{path} holds its weights in {pickles[0]}, a pickle, which may run any code and is never read; make "
            "safetensors of it where you trust it: AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW_DIR)"
        )
        return (), (_problem(message + "; or set weights: random"),)
    if wanted == "load":
        return (), (_problem(f"expected {_WHOLE} or {_INDEX} in {path}, found neither"),)
    return (), ()


def _safetensors(path: Path) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """The files of the weights; a single file counts before an index, as in transformers."""
    if (path / _WHOLE).exists():
        return (_WHOLE,), ()
    if not (path / _INDEX).exists():
        return (), ()
    index, problems = _read_json(path / _INDEX)
    if problems:
        return (), problems
    files = _file_names(index.get("weight_map"))
    if files is None:
        return (), (_problem(f"{path / _INDEX} has no weight_map of file names"),)
    if outside := [name for name in files if Path(name).name != name]:
        return (), (_problem(f"{path / _INDEX} names a file outside of the folder: {outside[0][:100]}"),)
    if missing := [name for name in files if not (path / name).exists()]:
        return (), (_problem(f"{path / _INDEX} names {missing[0]}, which is not there ({len(missing)} missing)"),)
    return files, ()


def _file_names(weight_map: object) -> tuple[str, ...] | None:
    """Where an index says that the tensors are, each file once; None if it says something else."""
    if not is_mapping(weight_map):
        return None
    names = [name for name in weight_map.values() if isinstance(name, str)]
    return tuple(sorted(set(names))) if len(names) == len(weight_map) else None


def _read_json(path: Path) -> tuple[Mapping[str, Any], tuple[Problem, ...]]:
    try:
        return read_object(path, _MOST_BYTES), ()
    except FileNotFoundError:
        return {}, (_problem(f"expected {path.name} in {path.parent}, found none"),)
    except OSError as error:
        return {}, (_problem(f"{path} cannot be read: {error.strerror}"),)
    except NoJsonError as error:
        return {}, (_problem(f"{path}: {error}"),)


def _problem(message: str) -> Problem:
    return Problem(path=PATH, message=message)
