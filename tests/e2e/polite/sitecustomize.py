"""Workers of an installation with this on its path give way to all others: a job without an end costs little."""

import os
import sys

if "trainctl.agent.forkserver" in sys.orig_argv:
    os.register_at_fork(after_in_child=lambda: os.nice(3))
