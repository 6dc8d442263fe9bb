"""torchft's lighthouse with the settings of its README, in a process of its own: it logs every quorum.

Argument: file that its address is written to. Ends with its standard input.
"""

from __future__ import annotations

import sys
from pathlib import Path

from torchft.coordination import LighthouseServer


def main() -> None:
    lighthouse = LighthouseServer(bind="127.0.0.1:0", min_replicas=1, quorum_tick_ms=100, join_timeout_ms=10000)
    address = Path(sys.argv[1])
    address.with_suffix(".tmp").write_text(lighthouse.address())
    address.with_suffix(".tmp").rename(address)
    sys.stdin.read()
    lighthouse.shutdown()


if __name__ == "__main__":
    main()
