"""Versions of etcd that lose what they acknowledged: none of our guarantees holds on one. Pure."""

from __future__ import annotations

import re

_VERSION = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_TORN_FROM, _TORN_BEFORE = (3, 5, 0), (3, 5, 3)


def flaw_of(version: str) -> str:
    """What an etcd of this version is known to do wrong to our data, and what helps; empty if nothing is known.

    3.5.0 to 3.5.2 save how far they got apart from what they wrote: a member that is killed in between skips a
    transaction when it comes back, and refuses whatever builds on it, while the others have it (etcd issue 13766).
    """
    found = _VERSION.match(version)
    if found is None:
        return ""
    number = tuple(int(part) for part in found.groups())
    if not _TORN_FROM <= number < _TORN_BEFORE:
        return ""
    return (
        f"etcd {version} can lose confirmed changes when a member is killed (etcd issue 13766): go to 3.5.3 or later; "
        "until then start every member with --backend-batch-limit=1"
    )
