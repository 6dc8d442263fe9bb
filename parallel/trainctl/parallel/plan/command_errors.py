"""How a command ends a worker; the controller tells them apart by their codes."""

from __future__ import annotations

from trainctl.core.errors import TrainctlError


class CommandError(TrainctlError):
    """The user's command ended with a non-zero exit code."""

    code = "COMMAND_EXIT"
    exit_code = 1


class CommandKilledError(CommandError):
    """The user's command was ended by a signal that nobody here sent."""

    code = "COMMAND_SIGNAL"


class CommandUnusableError(CommandError):
    """The user's command cannot be started: its program or its folder is missing or not allowed."""

    code = "COMMAND_UNUSABLE"
    exit_code = 6
