"""Code of the user's own, named in a job file as ``module:Name``."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any


class UserCodeError(Exception):
    """What is wrong with the name; the text says what was expected and what to do."""


def load(path: str) -> Any:
    """What ``module:Name`` means; ``Name`` may have dots.

    The folders of ``PYTHONPATH`` are looked into also where a job's ``spec.env`` set it after this process began.

    Raises:
        UserCodeError: there is no such module, it cannot be imported, or it has no such name.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise UserCodeError(f"expected module:Name, found {path!r}")
    _heed_pythonpath()
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"module {error.name} was not found"
        where = "" if error.name == module_name else f", which {module_name} imports"
        raise UserCodeError(
            f"{missing}{where}; is it installed where the workers run, or in spec.env.PYTHONPATH?"
        ) from error
    except Exception as error:
        raise UserCodeError(f"importing {module_name} raised {type(error).__name__}: {error}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise UserCodeError(f"module {module_name} ({getattr(found, '__file__', '?')}) has no {name!r}") from None
    return found


def _heed_pythonpath() -> None:
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    missing = [folder for folder in folders if folder not in sys.path]
    if missing:
        sys.path[:0] = missing
        importlib.invalidate_caches()
