"""A program that runs and begins no step looks like one that loads for long: people are told before it is given up."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

from trainctl.core.units import format_duration
from trainctl.parallel.bridge import Noticed
from trainctl.parallel.session.attachment import Attachment


@contextmanager
def told_of_late_start(attachment: Attachment, boot_s: float) -> Generator[None, None, None]:
    """While the program runs in the block: an event of the job if it has begun no step after half of ``boot_s``."""

    def tell() -> None:
        session = attachment.session
        if session is None or not session.begun:
            missing = "opened no session" if session is None else "not entered `with session.step()`"
            attachment.control.send(
                Noticed(
                    f"the program runs for {format_duration(boot_s / 2)} and has {missing} yet; a worker that is not "
                    f"ready after {format_duration(boot_s)} is started again"
                )
            )

    timer = threading.Timer(boot_s / 2, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
