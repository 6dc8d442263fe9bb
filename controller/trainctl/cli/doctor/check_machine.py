"""Checks of this machine. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.cli.doctor.facts import Facts, Folder
from trainctl.cli.doctor.finding import Finding, fail, ok, warn
from trainctl.core.units import format_bytes, format_count

MIN_PYTHON = (3, 11)
LITTLE_BYTES = 2 * 2**30
NOTHING_BYTES = 100 * 2**20
SHM_BYTES = 64 * 2**20
OPEN_FILES = 4096
FEWEST_OPEN_FILES = 256
PROCESSES = 1024
SLOW_S = 1.0


def check_python(facts: Facts) -> Iterator[Finding]:
    """The interpreter."""
    version = facts.machine.python
    text = ".".join(map(str, version))
    if version[:2] < MIN_PYTHON:
        yield fail("python", f"expected Python 3.11 or newer, found {text}", "make a new .venv with a newer Python")
    else:
        yield ok("python", f"Python {text}")


def check_home(facts: Facts) -> Iterator[Finding]:
    """The folder of the local installation."""
    yield from folder_findings("TRAINCTL_HOME", facts.machine.home, "choose another folder with TRAINCTL_HOME")


def folder_findings(check: str, folder: Folder, remedy: str) -> Iterator[Finding]:
    """Whether a folder can be written to, and for how long."""
    if folder.error:
        yield fail(check, f"{folder.path} cannot be written: {folder.error}", remedy)
        return
    yield space_finding(check, folder.path, folder.free_bytes, 0, remedy)


def space_finding(check: str, place: str, free_bytes: int, needed_bytes: int, remedy: str) -> Finding:
    """Whether there is room for what is known to come, or for anything at all."""
    left = f"{format_bytes(free_bytes)} are free in {place}"
    needs = f"; a checkpoint takes {format_bytes(needed_bytes)}" if needed_bytes else ""
    if free_bytes < max(NOTHING_BYTES, needed_bytes):
        return fail(check, f"only {left}{needs}", f"make room, or {remedy}")
    if free_bytes < max(LITTLE_BYTES, 3 * needed_bytes):
        return warn(check, f"only {left}{needs}", f"make room, or {remedy}")
    return ok(check, f"{left}{needs}")


def check_shared_memory(facts: Facts) -> Iterator[Finding]:
    """/dev/shm: progress pages, tensors handed between processes, NCCL's rings."""
    size = facts.machine.shm_bytes
    if size is None:
        yield fail("/dev/shm", "there is no /dev/shm", "mount a tmpfs there; in a container: --shm-size=1g")
    elif size < SHM_BYTES:
        yield warn(
            "/dev/shm",
            f"/dev/shm has {format_bytes(size)}, expected {format_bytes(SHM_BYTES)} or more",
            "mount -o remount,size=1g /dev/shm; in a container: --shm-size=1g",
        )
    else:
        yield ok("/dev/shm", f"{format_bytes(size)} of shared memory")


def check_open_files(facts: Facts) -> Iterator[Finding]:
    """RLIMIT_NOFILE: agents hold a pipe, a socket and a page a worker, workers a socket a peer."""
    soft, hard = facts.machine.open_files
    if 0 <= soft < FEWEST_OPEN_FILES:
        judge = fail
    elif 0 <= soft < min(OPEN_FILES, hard if hard >= 0 else OPEN_FILES):
        judge = warn
    else:
        yield ok("open files", f"{soft if soft >= 0 else 'any number of'} open files are allowed")
        return
    yield judge(
        "open files",
        f"{soft} open files are allowed, expected {OPEN_FILES} or more",
        f"{_raise_open_files(soft, hard)}, then start the agents again",
    )


def _raise_open_files(soft: int, hard: int) -> str:
    """What a user may do by himself, as far as that helps; beyond the hard limit only root helps."""
    if hard < 0 or hard >= OPEN_FILES:
        return f"ulimit -n {OPEN_FILES}"
    by_root = f"let root raise the hard limit of {hard} (nofile in /etc/security/limits.conf) and log in anew"
    return f"ulimit -n {hard}; for {OPEN_FILES} {by_root}" if soft < hard else by_root


def check_processes(facts: Facts) -> Iterator[Finding]:
    """RLIMIT_NPROC counts threads, too."""
    limit = facts.machine.processes
    if 0 <= limit < PROCESSES:
        yield warn(
            "processes",
            f"{limit} processes and threads are allowed for this user, expected {PROCESSES} or more",
            f"ulimit -u {PROCESSES}, then start the agents again",
        )
    else:
        number = "any number of" if limit < 0 else str(limit)
        yield ok("processes", f"{number} processes and {format_count(facts.machine.cores, 'core')} are allowed")


def check_names(facts: Facts) -> Iterator[Finding]:
    """The own host name: gloo asks for its address."""
    machine = facts.machine
    if machine.host_error:
        yield fail(
            "host name",
            f"the own name {machine.host!r} leads to no address: {machine.host_error}",
            f"add a line `127.0.1.1 {machine.host}` to /etc/hosts",
        )
    elif machine.resolve_s > SLOW_S:
        yield warn(
            "host name",
            f"the own name {machine.host!r} took {machine.resolve_s:.1f} s to look up",
            "add it to /etc/hosts, or look at the name servers in /etc/resolv.conf",
        )
    else:
        yield ok("host name", f"{machine.host} has an address")


def check_ports(facts: Facts) -> Iterator[Finding]:
    """The loopback: all of a local installation listens there."""
    if facts.machine.loopback_error:
        yield fail(
            "ports",
            f"nobody can listen on 127.0.0.1: {facts.machine.loopback_error}",
            "ip link set lo up; are all ports of net.ipv4.ip_local_port_range taken?",
        )
    else:
        yield ok("ports", "ports of 127.0.0.1 can be listened on")
