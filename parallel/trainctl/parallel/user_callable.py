"""A class or function of the user's own that a field of the job file names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trainctl.core.errors import Problem, SpecError
from trainctl.parallel.user_code import UserCodeError, load


def load_callable(path: str, *, field: str) -> Callable[..., Any]:
    """What ``module:name`` means, which has to be callable.

    What the module itself raises passes through as it is, with the user's lines in its traceback.

    Args:
        path: what the job file says.
        field: where it says so, for messages.

    Raises:
        SpecError: there is no such module, nothing of that name in it, or it cannot be called.
    """
    try:
        found = load(path)
    except UserCodeError as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, ModuleNotFoundError):
            raise cause from None
        raise SpecError((Problem(path=field, message=f"{path}: {error}"),), source="job") from error
    if not callable(found):
        message = f"{path}: expected a class or function, found {type(found).__name__}"
        raise SpecError((Problem(path=field, message=message),), source="job")
    return found  # type: ignore[no-any-return]
