"""What the command's exit code says; the same for every subcommand, part of the stable interface."""

from __future__ import annotations

from collections.abc import Mapping

OK = 0
FAILURE = 1
USAGE = 2
NOT_FOUND = 3
CONFLICT = 4
PERMISSION = 5
PRECONDITION = 6
UNAVAILABLE = 7
JOB_FAILED = 8
JOB_CANCELLED = 9
INTERRUPTED = 130

MEANINGS: Mapping[int, str] = {
    OK: "done",
    FAILURE: "failed for a reason without a code of its own (an internal error says where its traceback is)",
    USAGE: "wrong usage, or an invalid job file",
    NOT_FOUND: "the named thing does not exist",
    CONFLICT: "the name is taken, or it runs already",
    PERMISSION: "not allowed, by the controller or by the file system",
    PRECONDITION: "it exists but is not in a state that allows this, or the request can never fit",
    UNAVAILABLE: "the controller or a storage is away or late; trying again may help",
    JOB_FAILED: "the awaited job failed (`submit --watch`, `submit --wait`, `watch`, `logs -f`, `get job -w`)",
    JOB_CANCELLED: "the awaited job was cancelled or preempted",
    INTERRUPTED: "interrupted with Ctrl-C; a job goes on, only the command ended",
}
