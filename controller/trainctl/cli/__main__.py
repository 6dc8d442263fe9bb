"""``python -m trainctl.cli``: the same as the ``trainctl`` command."""

from __future__ import annotations

import sys

from trainctl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
