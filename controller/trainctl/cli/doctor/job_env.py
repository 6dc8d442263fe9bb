"""The environment in which the workers of a job reach storages: what the job file says, and the secrets it names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainctl.cli.config.settings import resolve
from trainctl.cli.connection.connecting import named_installation
from trainctl.cli.context import Context
from trainctl.controller.domain.spec.credentials import is_credential
from trainctl.core.errors import TrainctlError
from trainctl.core.system.run_folder import read_controller
from trainctl.core.system.secret_files import SecretUnusableError, read_secrets

_FOLDER = "name the folder of their values with --secrets DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnv:
    """What a job adds to the environment; the values of secrets are never shown.

    Attributes:
        variables: of ``spec.env``, and the secrets that could be read.
        secrets: those of them, by name.
        error: which credentials cannot be had, and why; empty if none is missing.
        hint: what to do about that.
    """

    variables: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    error: str = ""
    hint: str = ""

    def hidden(self, text: str) -> str:
        """The text with names in the place of secrets: what a driver says may repeat what it was given."""
        for name, value in sorted(self.secrets.items(), key=lambda item: -len(item[1])):
            text = text.replace(value, f"<{name}>") if value else text
        return text


NOTHING = JobEnv()


def secrets_folder(context: Context) -> Path | None:
    """Where the values of secrets lie: what ``--secrets`` says, else what the agents of this machine were given."""
    if context.options.secrets:
        return Path(context.options.secrets).expanduser()
    try:
        settings = resolve(context)
        named = named_installation(context, settings) if settings["address"].value else None
        controller = named[1] if named is not None else None
        if not settings["address"].value:
            controller = read_controller(context.run_dir)
    except TrainctlError:
        return None
    return Path(controller.secrets) if controller is not None and controller.secrets else None


def job_env(
    env: Mapping[str, str], names: Sequence[str], folder: Path | None, *, own: Mapping[str, str] | None = None
) -> JobEnv:
    """Reads the secrets of a job as an agent does for its workers.

    A secret that no driver of a storage looks at may be missing here.

    Args:
        env: ``spec.env``.
        names: ``spec.secretEnv``.
        folder: of the values; None: it is not known.
        own: environment of this process, which may have them where there is no folder.
    """
    # What tries a storage is ours, whatever Python the workers run.
    env = {name: value for name, value in env.items() if not name.startswith("PYTHON")}
    secrets: dict[str, str] = {}
    refused: dict[str, SecretUnusableError] = {}
    for name in names if folder is not None else ():
        try:
            secrets.update(read_secrets(folder, [name]))
        except SecretUnusableError as error:
            if is_credential(name):
                refused[name] = error
    given = own or {}
    unknown = [name for name in names if is_credential(name) and name not in given] if folder is None else []
    if unknown:
        named = f"spec.secretEnv names {', '.join(unknown)}, and where their values lie is not known here"
        return JobEnv(variables=env, error=named, hint=_FOLDER)
    return JobEnv(
        variables={**env, **secrets},
        secrets=secrets,
        error="; ".join(str(error) for error in refused.values()),
        hint="; ".join(dict.fromkeys(error.hint or _FOLDER for error in refused.values())),
    )
