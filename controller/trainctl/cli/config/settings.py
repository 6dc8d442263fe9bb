"""What each setting is, and where that comes from: flags, else the environment, else the context, else a default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainctl.cli.config.file import ConfigFile, read_config
from trainctl.cli.context import Context
from trainctl.core.errors import NotFoundError
from trainctl.core.texts import quoted

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        name: as ``config explain`` calls it, and in the config file.
        option: attribute of the parsed command line, or empty.
        variable: of the environment, or empty.
        default: where nobody says anything.
        meaning: of the default, for people.
    """

    name: str
    option: str = ""
    variable: str = ""
    default: str = ""
    meaning: str = ""

    @property
    def flag(self) -> str:
        """As it is written on the command line."""
        return f"--{self.option.replace('_', '-')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A setting's value and where it was found."""

    value: str
    origin: str


CONTEXT = Setting(name="context", option="context", variable="TRAINCTL_CONTEXT", meaning="none")
SETTINGS = (
    Setting(name="address", option="address", variable="TRAINCTL_ADDRESS", meaning="the local installation's"),
    Setting(name="tokenFile", option="token_file", variable="TRAINCTL_TOKEN_FILE", meaning="the local installation's"),
    Setting(name="tenant", option="tenant", variable="TRAINCTL_TENANT", meaning="the token's only one, else default"),
    Setting(name="timeout", option="timeout", variable="TRAINCTL_TIMEOUT", default="10s"),
    Setting(name="caFile", option="ca_file", variable="TRAINCTL_CA_FILE", meaning="the local installation's"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one command.

    Attributes:
        context: name of the context in force, or an empty value.
        by_name: the others.
    """

    context: Found
    by_name: Mapping[str, Found]

    def __getitem__(self, name: str) -> Found:
        """One of them."""
        return self.by_name[name]


def resolve(context: Context) -> Settings:
    """Looks everything up.

    Raises:
        SpecError: the config file is invalid.
        NotFoundError: the context that is asked for does not exist.
    """
    config = read_config(context.env)
    chosen = _given(context, CONTEXT)
    if chosen is None:
        chosen = Found(value=config.current, origin=str(config.path) if config.current else DEFAULT)
    entries = _entries(config, chosen)
    where = f"context {chosen.value} in {config.path}"
    found = {s.name: _given(context, s) or _from_context(s, entries, where) for s in SETTINGS}
    return Settings(context=chosen, by_name=found)


def _given(context: Context, setting: Setting) -> Found | None:
    value = str(getattr(context.options, setting.option, "") or "") if setting.option else ""
    if value:
        return Found(value=value, origin=setting.flag)
    value = context.env.get(setting.variable, "") if setting.variable else ""
    return Found(value=value, origin=setting.variable) if value else None


def _from_context(setting: Setting, entries: Mapping[str, str], where: str) -> Found:
    if setting.name in entries:
        return Found(value=entries[setting.name], origin=where)
    return Found(value=setting.default, origin=DEFAULT)


def _entries(config: ConfigFile, chosen: Found) -> Mapping[str, str]:
    if not chosen.value:
        return {}
    if chosen.value not in config.contexts:
        known = ", ".join(config.contexts) or "none"
        raise NotFoundError(
            f"{chosen.origin}: there is no context {quoted(chosen.value)} in {config.path}; known: {known}",
            hint="`trainctl config set-context` adds one",
        )
    return config.contexts[chosen.value]
