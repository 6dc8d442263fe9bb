"""``python -m trainctl.agent``."""

from __future__ import annotations

import sys

from trainctl.agent.main import main

if __name__ == "__main__":
    sys.exit(main())
