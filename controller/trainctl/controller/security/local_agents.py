"""Nodes of an installation with TLS, as a term begins; the agents that the controller starts itself join, too."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from trainctl.controller.installation import fingerprint
from trainctl.controller.leadership import Leadership
from trainctl.controller.security.nodes import NodeCertificates
from trainctl.core.system.clock import SystemClock
from trainctl.core.system.files import write_atomically

if TYPE_CHECKING:
    from trainctl.controller.frame import Frame
    from trainctl.controller.security.tls import Tls

JOIN_FILE = "join-token"
"""Name of the file in a local node's folder."""


async def open_nodes(frame: Frame, tls: Tls, leadership: Leadership) -> NodeCertificates:
    """Which key is which node's, as the store says it.

    Raises:
        StoreCorruptError: it cannot be read.
    """
    nodes = NodeCertificates(
        frame.store,
        leadership,
        tls.authority,
        installation=fingerprint(frame.settings.run_dir.token()),
        wall_s=SystemClock().wall_s,
        life_s=tls.settings.agent_life_s,
    )
    await nodes.load()
    return nodes


async def let_in(nodes: NodeCertificates, folder: Path, names: Iterable[str]) -> None:
    """Writes a join token into the folder of each of the controller's own nodes, for its owner only."""
    for index, name in enumerate(names):
        (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        text = await nodes.local_token(name, index)
        write_atomically(folder / name / JOIN_FILE, text.encode() + b"\n", mode=0o600)
