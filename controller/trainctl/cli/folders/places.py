"""Folders and URIs that stand where the name of a job may stand, too: a name has no slash."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Generator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from trainctl.checkpoint.kept.others import about_file
from trainctl.core.errors import NotFoundError, PermissionDeniedError, UnavailableError, UsageError
from trainctl.core.uris import uri_hint, uri_problem


def is_path(text: str) -> bool:
    """Whether it is no job's name: a folder here is ``./name``. A misspelt URI is none either."""
    return "/" in text or text in (".", "..") or bool(uri_problem(text))


def absolute(place: str) -> str:
    """A path seen from here; a URI stays as it is.

    Raises:
        UsageError: it is a misspelt URI, which would pass for a path.
    """
    problem = uri_problem(place)
    if problem:
        raise UsageError(f"{place}: {problem}", hint=uri_hint(place))
    return place if "://" in place else str(Path(place).expanduser().absolute())


def see_folder(uri: str) -> None:
    """Sees that a folder is there, as far as that can be told without its storage.

    Raises:
        NotFoundError: there is none on this machine.
        UsageError: a file is there.
        PermissionDeniedError: nobody may look.
    """
    path = unquote(urlsplit(uri).path) if uri.startswith("file://") else uri
    if "://" in path:
        return
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(
            f"there is no folder {path}", hint="check the path; a job is named without a slash"
        ) from None
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{path} cannot be looked at: {error.strerror}", hint="it takes the right to read it, and those above it"
        ) from error
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{path}: expected a folder of checkpoints, found a file", hint=about_file(path))


@contextlib.contextmanager
def or_folder(name: str) -> Generator[None, None, None]:
    """Who names a job that no controller knows may mean a folder: then the error says how that is written."""
    try:
        yield
    except (NotFoundError, UnavailableError) as error:
        if Path(name).is_dir():
            written = f"for the folder of that name write ./{name}"
            error.hint = written if isinstance(error, NotFoundError) or not error.hint else f"{error.hint}; {written}"
        raise
