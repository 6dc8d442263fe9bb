"""Entry point. It imports next to nothing, so that a Ctrl-C in the first moment meets a handler, too."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TextIO


def main(
    argv: Sequence[str] | None = None,
    *,
    out: TextIO | None = None,
    err: TextIO | None = None,
    env: Mapping[str, str] | None = None,
) -> int:
    """Runs ``trainctl``; the streams and the environment can be given by a test. Returns the exit code."""
    try:
        if argv is None:
            from trainctl.cli.terminal.standard_streams import hold_closed_places

            hold_closed_places()
        from trainctl.cli.program import run

        return run(sys.argv[1:] if argv is None else argv, out=out, err=err, env=env)
    except KeyboardInterrupt:
        print("interrupted", file=err or sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
