"""How long a worker waits in one collective, by recovery profile; the controller's hang detection allows as much."""

from __future__ import annotations

COLLECTIVE_S = {"fast": 20.0, "balanced": 60.0, "patient": 600.0}


def collective_timeout_s(profile: str) -> float:
    """Seconds; an unknown profile was refused long before, so it counts as ``balanced``."""
    return COLLECTIVE_S.get(profile, COLLECTIVE_S["balanced"])
