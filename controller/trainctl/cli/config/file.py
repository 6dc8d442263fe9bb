"""The config file: contexts, each a controller with what it takes to talk to it. Read strictly, written whole.

::

    currentContext: lab
    contexts:
      lab: {address: "lab-1:7070", tokenFile: ~/lab.token}
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainctl.core.errors import PermissionDeniedError, Problem, SpecError
from trainctl.core.plain import is_mapping
from trainctl.core.system.files import write_atomically
from trainctl.core.system.given_files import read_given
from trainctl.core.texts import quoted, shortened

MAX_BYTES = 256 * 1024
KEYS = ("address", "tokenFile", "tenant", "timeout", "caFile")
"""What a context may say."""
_TOP = ("currentContext", "contexts")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFile:
    """What the file says.

    Attributes:
        path: where it is, or would be; None where the environment says that there shall be none.
        current: name of the current context, or empty.
        contexts: by name, what each says.
    """

    path: Path | None
    current: str = ""
    contexts: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])

    def data(self) -> dict[str, Any]:
        """The file's content as it is written."""
        chosen: dict[str, Any] = {"currentContext": self.current} if self.current else {}
        return {**chosen, "contexts": {name: dict(entries) for name, entries in self.contexts.items()}}


def config_path(env: Mapping[str, str]) -> Path | None:
    """``$TRAINCTL_CONFIG`` (empty: none), else ``trainctl/config.yaml`` in ``$XDG_CONFIG_HOME`` or ``~/.config``."""
    named = env.get("TRAINCTL_CONFIG")
    if named is not None:
        return Path(named).expanduser().absolute() if named else None
    home = env.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "trainctl" / "config.yaml"


def read_config(env: Mapping[str, str]) -> ConfigFile:
    """The config file; an empty one if there is none.

    Raises:
        PermissionDeniedError: it cannot be read.
        SpecError: it is invalid; names every problem.
    """
    path = config_path(env)
    if path is None:
        return ConfigFile(path=None)
    try:
        raw = read_given(path, MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return ConfigFile(path=path)
    except OSError as error:
        raise PermissionDeniedError(
            f"cannot read the config file {path}: {error.strerror}", hint="name another one with TRAINCTL_CONFIG"
        ) from error
    data = _parse(raw, path)
    problems = tuple(Problem(path=where, message=message) for where, message in check(data))
    if problems:
        raise SpecError(problems, source=str(path), hint="`trainctl config set-context` writes it for you")
    contexts = {str(name): {key: str(value) for key, value in c.items()} for name, c in _contexts(data).items()}
    return ConfigFile(path=path, current=str(data.get("currentContext") or ""), contexts=contexts)


def write_config(config: ConfigFile) -> None:
    """Replaces the file, readable for its owner only.

    Raises:
        PermissionDeniedError: it cannot be written, or ``TRAINCTL_CONFIG`` is empty.
    """
    import yaml

    if config.path is None:
        raise PermissionDeniedError("there is no config file: TRAINCTL_CONFIG is empty", hint="unset TRAINCTL_CONFIG")
    try:
        config.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        text = yaml.safe_dump(config.data(), sort_keys=False, allow_unicode=True)
        write_atomically(config.path, text.encode(), mode=0o600)
    except OSError as error:
        raise PermissionDeniedError(
            f"cannot write the config file {config.path}: {error.strerror}",
            hint="name another one with TRAINCTL_CONFIG",
        ) from error


def check(data: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Path and message of everything that is wrong with the file's content."""
    yield from ((str(key), _unknown(str(key), _TOP)) for key in data if key not in _TOP)
    contexts: object = data.get("contexts") or {}
    if not is_mapping(contexts):
        yield "contexts", f"expected a mapping of names to contexts, found {_shown(contexts)}"
        return
    current = data.get("currentContext")
    if current and current not in contexts:
        yield (
            "currentContext",
            f"there is no context {quoted(str(current))}; known: {', '.join(map(str, contexts)) or 'none'}",
        )
    for name, entries in contexts.items():
        where = f"contexts.{name}"
        if not is_mapping(entries):
            yield where, f"expected a mapping such as {{address: host:7070}}, found {_shown(entries)}"
            continue
        for key, value in entries.items():
            if key not in KEYS:
                yield f"{where}.{key}", _unknown(str(key), KEYS)
            elif not isinstance(value, str) or not value:
                yield f"{where}.{key}", f"expected a text, found {_shown(value)}"


def _shown(value: object) -> str:
    return shortened(json.dumps(value, default=str, ensure_ascii=False))


def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return "unknown field" + (f' (did you mean "{near[0]}"?)' if near else f"; known: {', '.join(known)}")


def _contexts(data: Mapping[str, Any]) -> Mapping[Any, Mapping[Any, Any]]:
    found: Mapping[Any, Mapping[Any, Any]] = data.get("contexts") or {}
    return found


def _parse(raw: bytes, path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        if len(raw) > MAX_BYTES:
            raise ValueError(f"expected at most {MAX_BYTES // 1024} KiB, found more")
        if b"&" in raw and any(isinstance(token, yaml.AnchorToken) for token in yaml.scan(raw)):
            raise ValueError("anchors are not supported here")
        data: object = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        message = " ".join(str(error).split())[:300]
        raise SpecError((Problem(path="", message=message),), source=str(path), hint="repair or remove it") from error
    if data is None:
        return {}
    if not is_mapping(data):
        problem = Problem(path="", message="expected a mapping with contexts")
        raise SpecError((problem,), source=str(path), hint="repair or remove it")
    return data
