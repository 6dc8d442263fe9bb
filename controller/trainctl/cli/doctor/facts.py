"""Everything that the checks are about, as data: a test writes down a broken machine instead of breaking one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that is written to.

    Attributes:
        path: of the folder.
        error: why nothing can be written there, or empty.
        free_bytes: for this user, on its file system.
    """

    path: str
    error: str = ""
    free_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """This machine and this user's limits on it.

    Attributes:
        python: version of the interpreter.
        host: own name.
        host_error: why the own name leads to no address, or empty.
        resolve_s: seconds that took.
        loopback_error: why nobody can listen on 127.0.0.1, or empty.
        home: ``TRAINCTL_HOME``.
        shm_bytes: size of /dev/shm; None where there is none.
        open_files: soft and hard limit.
        processes: soft limit of processes of this user; -1 for none.
        cores: that this process may use.
    """

    python: tuple[int, int, int]
    host: str
    host_error: str
    resolve_s: float
    loopback_error: str
    home: Folder
    shm_bytes: int | None
    open_files: tuple[int, int]
    processes: int
    cores: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """One line of the distribution's requirements.

    Attributes:
        name: of a distribution.
        bounds: such as ``>=1.80,<2``; may be empty.
        extra: which of our extras wants it; empty for what everybody needs.
    """

    name: str
    bounds: str
    extra: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """What is installed beside us: versions by distribution, None for what is missing."""

    own_version: str
    requirements: tuple[Requirement, ...]
    installed: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Torch:
    """What a process of its own found out about torch.

    Attributes:
        version: empty if it cannot be imported.
        error: why not, or what went wrong later.
        cuda: version of CUDA that it was built with, or empty.
        backends: for collectives.
        devices: names of CUDA devices that it can compute on.
        device_error: why it cannot compute on one, or empty.
        all_reduce: ``ok`` or what NCCL said over two devices; empty if it was not tried.
    """

    version: str = ""
    error: str = ""
    cuda: str = ""
    backends: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    device_error: str = ""
    all_reduce: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """The NVIDIA driver: its version, and how many devices it has. Version empty: there is none."""

    version: str = ""
    devices: int = 0
    visible: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node as the controller sees it."""

    name: str
    state: str
    silent_s: float
    version: str
    certificate_left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """The state store, as the controller that leads found it a moment ago.

    Attributes:
        where: ``file:PATH`` or ``etcd://HOST:PORT/PREFIX``, without what only its owner may know.
        took_s: until it confirmed the write that it was tried with, or until that failed.
        error: why that failed, or empty.
        error_code: of that error.
        remedy: what that error said to do.
        size_bytes: what it occupies; 0: not known.
        limit_bytes: what it may occupy; 0: not known.
        disk_free_bytes: on its disk; None where nobody can tell.
        alarms: what it says itself is wrong with it.
        flaw: what its version is known to do wrong to data, and what helps.
        confirmed_age_s: since the controller's newest change was confirmed; None: not known.
        confirmed_took_s: how long that took.
        failed: why the newest change was not confirmed; empty if it was.
        failed_age_s: since then.
        jobs_in_doubt: jobs of which it is not known whether their newest change took effect.
    """

    where: str
    took_s: float = 0.0
    error: str = ""
    error_code: str = ""
    remedy: str = ""
    size_bytes: int = 0
    limit_bytes: int = 0
    disk_free_bytes: int | None = None
    alarms: tuple[str, ...] = ()
    flaw: str = ""
    confirmed_age_s: float | None = None
    confirmed_took_s: float = 0.0
    failed: str = ""
    failed_age_s: float = 0.0
    jobs_in_doubt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """The controller that commands would talk to now.

    Attributes:
        address: host:port; empty if none is named.
        error: why it cannot be talked to, or empty.
        error_code: of that error.
        cause: code of the error behind that one, or empty.
        remedy: what that error said to do.
        version: of its package.
        wire_version: that it speaks.
        skew_s: its clock minus ours; None where it does not tell.
        round_trip_s: of one request.
        doubt: why it may have an old copy of the store.
        store: how that is; None: an older controller does not tell.
        nodes: with agents.
        local_pid: of the controller of the local installation, 0 if that is another one or none.
        frozen: its process is stopped (by a signal or a debugger).
        certificate_left_s: until the certificate that it shows expires; None without TLS.
        authority_left_s: until that of the authority expires that this side trusts; None without TLS.
    """

    address: str = ""
    error: str = ""
    error_code: str = ""
    cause: str = ""
    remedy: str = ""
    version: str = ""
    wire_version: int = 0
    skew_s: float | None = None
    round_trip_s: float = 0.0
    doubt: str = ""
    store: Store | None = None
    nodes: tuple[Node, ...] = ()
    local_pid: int = 0
    frozen: bool = False
    certificate_left_s: float | None = None
    authority_left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """A place that a job reads or writes.

    Attributes:
        field: of the job file, or what else names it.
        uri: of the folder.
        error: why it cannot be used from here, or empty.
        hint: what that error said to do.
        notes: what works, but not as well as it could.
        took_s: seconds for a file to be written, read back, listed and removed; None: that was not tried.
        free_bytes: None where nobody can tell.
        needed_bytes: of one more checkpoint, 0 if not known.
    """

    field: str
    uri: str
    error: str = ""
    hint: str = ""
    notes: tuple[str, ...] = ()
    took_s: float | None = None
    free_bytes: int | None = None
    needed_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFacts:
    """One job and what it needs.

    Attributes:
        name: of the job, or what was asked for.
        error: why nothing is known about it, or empty.
        phase: where it is.
        reason: why.
        profile: ``recovery.profile``.
        replacement_wait_s: as the job has it.
        wanted_slots: workers that it needs at least.
        free_slots: on nodes that are ready.
        cuda: whether its workers want CUDA devices.
        recoveries: so far.
        storages: that it reads and writes.
    """

    name: str
    error: str = ""
    phase: str = ""
    reason: str = ""
    profile: str = ""
    replacement_wait_s: float = 0.0
    wanted_slots: int = 0
    free_slots: int = 0
    cuda: bool = False
    recoveries: int = 0
    storages: tuple[Storage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All of it.

    ``local``: an installation of this machine is used, so that its workers run here. ``storages``: places that were
    named, or those of jobs that run.
    """

    machine: Machine
    software: Software
    torch: Torch
    driver: Driver
    controller: Controller
    local: bool
    wire_version: int
    job: JobFacts | None = None
    storages: tuple[Storage, ...] = ()
    timeouts: Mapping[str, float] = field(default_factory=dict[str, float])
    profile: str = "balanced"
