"""Which controller to talk to, and as whom: flags, then the environment, then the local installation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainctl.cli.context import Context
from trainctl.cli.installation import read_controller, read_token
from trainctl.core.errors import UnavailableError, UsageError
from trainctl.core.units import parse_duration_s

DEFAULT_TIMEOUT_S = 10.0
_START = "start one on this machine with: trainctl local up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A controller's address.

    Attributes:
        address: host:port.
        token: bearer token, or empty.
        origin: where the address was found, for messages.
        hint: what to do if nobody answers there.
    """

    address: str
    token: str
    origin: str
    hint: str = _START


def find_endpoint(context: Context) -> Endpoint:
    """The controller that the flags, the environment or the local installation name, in this order.

    Raises:
        UnavailableError: none is named, or the local one does not run.
        PermissionDeniedError: the token cannot be read.
        UsageError: the address is not host:port.
    """
    given = str(getattr(context.options, "address", ""))
    named = given or context.env.get("TRAINCTL_ADDRESS", "")
    token_file = str(getattr(context.options, "token_file", "")) or context.env.get("TRAINCTL_TOKEN_FILE", "")
    if not named:
        return local_endpoint(context.run_dir, token_file)
    origin = "--address" if given else "TRAINCTL_ADDRESS"
    host, _, port = named.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"{origin}: expected HOST:PORT, found {named!r}", hint="for example --address 127.0.0.1:7070")
    token = read_token(Path(token_file).expanduser()) if token_file else _own_token(context.run_dir, named)
    return Endpoint(address=named, token=token, origin=origin, hint=f"check {origin}; or {_START}")


def local_endpoint(run_dir: Path, token_file: str = "") -> Endpoint:
    """The controller of the local installation in ``run_dir``.

    Raises:
        UnavailableError: it does not run.
        PermissionDeniedError: its token cannot be read.
    """
    controller = read_controller(run_dir)
    if controller is None:
        raise UnavailableError(
            f"no controller: no --address, no TRAINCTL_ADDRESS, and none was started in {run_dir}", hint=_START
        )
    if not controller.alive:
        raise UnavailableError(
            f"the controller at {controller.address} is not running (process {controller.process.pid} has ended)",
            hint="start it again, with all its jobs: trainctl local up",
        )
    token = read_token(Path(token_file).expanduser() if token_file else run_dir / "token")
    return Endpoint(address=controller.address, token=token, origin=str(run_dir / "controller.json"))


def _own_token(run_dir: Path, address: str) -> str:
    """The local token, but only for the local controller: it must not travel to anybody else."""
    controller = read_controller(run_dir)
    return read_token(run_dir / "token") if controller is not None and controller.address == address else ""


def timeout_s(context: Context) -> float:
    """``--timeout`` in seconds.

    Raises:
        UsageError: it is not a positive duration.
    """
    text = str(getattr(context.options, "timeout", ""))
    return duration_option_s("--timeout", text) if text else DEFAULT_TIMEOUT_S


def duration_option_s(flag: str, text: str) -> float:
    """Seconds of a duration given on the command line.

    Raises:
        UsageError: it is not a positive duration.
    """
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"for example {flag} 30s") from error
    if seconds <= 0:
        raise UsageError(f"{flag}: expected more than nothing, found {text!r}", hint=f"for example {flag} 30s")
    return seconds
