"""How ``Session.open()`` in somebody's own program finds the agent that the program runs under."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from trainctl.core.errors import PreconditionError
from trainctl.parallel.session.control import Control, ProgressPage

ALONE = (
    "no agent: this process trains alone, without recovery, checkpoints, figures and other workers; "
    "run it with `trainctl submit` to have them"
)


class OpenSession(Protocol):
    """What whoever ran the program asks of the session that it opened; ``Session`` is one."""

    @property
    def done(self) -> bool:
        """Whether it trained to its end."""
        ...

    @property
    def begun(self) -> bool:
        """Whether its first step was asked for."""
        ...

    @property
    def applied_step(self) -> int:
        """Last step applied."""
        ...

    @property
    def open_step(self) -> int:
        """The step that is worked on."""
        ...

    def close(self) -> None:
        """Leaves the group."""
        ...


@dataclass(slots=True)
class Attachment:
    """What a program runs under.

    Attributes:
        control: the agent's bridge.
        page: the progress page.
        session: what the program opened, once it did.
    """

    control: Control
    page: ProgressPage
    session: OpenSession | None = None


_ATTACHED: ContextVar[Attachment | None] = ContextVar("trainctl.session", default=None)


@contextmanager
def attach(control: Control, page: ProgressPage) -> Generator[Attachment, None, None]:
    """While the block lasts, a session that is opened in it obeys ``control``."""
    attachment = Attachment(control, page)
    token = _ATTACHED.set(attachment)
    try:
        yield attachment
    finally:
        _ATTACHED.reset(token)


def attached() -> Attachment | None:
    """What ``attach`` gave, if anything."""
    return _ATTACHED.get()


def check_alone(env: Mapping[str, str]) -> None:
    """Sees that a process without an agent is the only one.

    Raises:
        PreconditionError: the environment says that there are several.
    """
    world_size = env.get("WORLD_SIZE", "1")
    if world_size != "1":
        raise PreconditionError(
            f"expected one process or an agent of trainctl, found WORLD_SIZE={world_size} and no agent",
            hint="submit the script with spec.command and spec.launch.mode: session instead of starting it by torchrun",
        )
