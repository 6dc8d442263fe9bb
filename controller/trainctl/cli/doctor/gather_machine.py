"""Looks at this machine and at what is installed on it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from trainctl.cli.doctor.facts import Driver, Folder, Machine, Requirement, Software
from trainctl.protos.version import DISTRIBUTION, package_version

_REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(?:\[[^]]*\])?\s*(?P<bounds>[^;]*)(?:;\s*extra\s*==\s*[\"'](?P<extra>\w+)[\"'])?"
)
_DRIVER = Path("/proc/driver/nvidia")


def machine(home: Path) -> Machine:
    """Facts about the machine."""
    begun_s = time.monotonic()
    host_error = _resolve(socket.gethostname())
    resolve_s = time.monotonic() - begun_s
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    shm = Path("/dev/shm")
    return Machine(
        python=(sys.version_info.major, sys.version_info.minor, sys.version_info.micro),
        host=socket.gethostname(),
        host_error=host_error,
        resolve_s=resolve_s,
        loopback_error=_listen(),
        home=folder(home),
        shm_bytes=shutil.disk_usage(shm).total if shm.is_dir() else None,
        open_files=(soft, hard),
        processes=resource.getrlimit(resource.RLIMIT_NPROC)[0],
        cores=len(os.sched_getaffinity(0)),
    )


def folder(path: Path) -> Folder:
    """Whether something can be written in a folder, or in the one that it would be made in."""
    existing = next(each for each in (path, *path.parents) if each.exists())
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"x")
            file.flush()
        return Folder(path=str(path), free_bytes=shutil.disk_usage(existing).free)
    except OSError as error:
        return Folder(path=str(path), error=error.strerror or str(error))


def software() -> Software:
    """Facts about the installed packages."""
    try:
        lines = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        lines = []
    requirements = tuple(
        Requirement(name=match["name"], bounds=match["bounds"].strip(" ()"), extra=match["extra"] or "")
        for line in lines
        if (match := _REQUIREMENT.fullmatch(line.strip())) is not None
    )
    names = {each.name for each in requirements} | {"torch"}
    return Software(
        own_version=package_version(),
        requirements=requirements,
        installed={name: _version(name) for name in sorted(names)},
    )


def driver(env: Mapping[str, str]) -> Driver:
    """The NVIDIA driver's own word, without any tool."""
    try:
        text = (_DRIVER / "version").read_text()
    except OSError:
        return Driver()
    match = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", text)
    gpus = _DRIVER / "gpus"
    return Driver(
        version=match[1] if match is not None else "unknown",
        devices=len(list(gpus.iterdir())) if gpus.is_dir() else 0,
        visible=env.get("CUDA_VISIBLE_DEVICES"),
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _resolve(host: str) -> str:
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _listen() -> str:
    try:
        with socket.create_server(("127.0.0.1", 0)):
            return ""
    except OSError as error:
        return error.strerror or str(error)
