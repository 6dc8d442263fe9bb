"""``python -m compatibility.older_controller``: a controller of the version before this one, as far as others can tell.

It stands for the newest version whose stored forms have the number below today's. What makes it older: it names another
package version, writes that schema into the store, and knows no step that leads beyond it. It changes nothing else:
its values have today's fields, which the real one would not write (``store_1.json`` has real ones), and its wire is
today's; ``other_versions.OtherVersion`` before it lets through what the older wire had.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import metadata
from unittest.mock import patch

from trainctl.controller.frame import Frame, framed
from trainctl.controller.main import main
from trainctl.controller.migrations import MIGRATIONS
from trainctl.controller.settings import Settings
from trainctl.protos.version import DISTRIBUTION

VERSION = "0.0.9"
_installed = metadata.version


def version(name: str) -> str:
    return VERSION if name == DISTRIBUTION else _installed(name)


@asynccontextmanager
async def framed_as_before(settings: Settings) -> AsyncIterator[Frame]:
    async with framed(settings) as frame:
        yield replace(frame, migrations=MIGRATIONS[:-1])


if __name__ == "__main__":
    with patch.object(metadata, "version", version), patch("trainctl.controller.app.framed", framed_as_before):
        sys.exit(main())
