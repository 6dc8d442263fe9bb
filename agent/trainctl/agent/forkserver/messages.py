"""What an agent and its fork server say to each other: one JSON object a packet, file descriptors beside it."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainctl.core.codec import from_wire, to_wire

_MAX_PACKET_BYTES = 1 << 20
_MAX_FDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawn:
    """Agent to server: fork a child that calls ``entry``.

    Attributes:
        request: number that the answer carries.
        entry: ``module:function``.
        arguments: keyword arguments of the function.
        fd_names: what the descriptors that come along are, in order. ``log`` becomes stdout and stderr; ``<x>_fd`` is
            passed as an argument of that name; ``<x>_path`` is passed as a path that opens it.
        env: added to the environment.
    """

    request: int
    entry: str
    arguments: Mapping[str, str] = field(default_factory=dict[str, str])
    fd_names: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """Agent to a shared server, once: what the fork that is to be its own has to be like. Its output comes along.

    Attributes:
        preload: modules to import, if they are not there yet.
        env: the whole environment.
        folder: the current one.
    """

    preload: tuple[str, ...]
    env: Mapping[str, str]
    folder: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """Server to agent, once: everything is preloaded. The server's pidfd comes along.

    Attributes:
        pid: the server's.
        threads: of the server; anything but 1 makes forking unsafe.
        preload_s: seconds the imports took.
    """

    pid: int
    threads: int
    preload_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawned:
    """Server to agent: the child runs. Its pidfd comes along."""

    request: int
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Server to agent: there is no child, because of ``message``."""

    request: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """Server to agent: a child ended and was reaped; ``code`` as a shell would show it, -9 for SIGKILL."""

    pid: int
    code: int


ServerMessage = Hello | Spawn | Up | Spawned | Refused | Exited
_TYPES: Mapping[str, type[ServerMessage]] = {cls.__name__: cls for cls in (Hello, Spawn, Up, Spawned, Refused, Exited)}


def send(channel: socket.socket, message: ServerMessage, fds: Sequence[int] = ()) -> None:
    """Sends one packet.

    Raises:
        OSError: the other side is gone, or (non-blocking) does not read.
    """
    data = json.dumps({"type": type(message).__name__, "body": to_wire(message)}).encode()
    socket.send_fds(channel, [data], list(fds))


def receive(channel: socket.socket) -> tuple[ServerMessage, tuple[int, ...]] | None:
    """The next packet and the descriptors that came with it, now owned by the caller; None when the other side left.

    Raises:
        BlockingIOError: non-blocking, and there is none yet.
    """
    try:
        data, fds, _, _ = socket.recv_fds(channel, _MAX_PACKET_BYTES, _MAX_FDS, socket.MSG_CMSG_CLOEXEC)
    except ConnectionError:
        return None
    if not data:
        return None
    packet = json.loads(data)
    return from_wire(_TYPES[packet["type"]], packet["body"]), tuple(fds)
