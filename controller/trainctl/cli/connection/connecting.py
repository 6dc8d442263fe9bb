"""Which controller to talk to, and as whom: what the settings name, else the local installation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from trainctl.cli.config.settings import Found, Settings
from trainctl.cli.connection.installation import frozen_hint, read_authority, read_token, remedy
from trainctl.cli.context import Context
from trainctl.core.errors import TrainctlError, UnavailableError, UsageError
from trainctl.core.loopback import beyond_loopback
from trainctl.core.system.run_folder import CONTROLLER_FILE, LocalController, read_controller, read_end
from trainctl.core.texts import quoted
from trainctl.core.units import format_duration, parse_duration_s

MAX_TIMEOUT_S = 3600.0
_START = "start one on this machine with: trainctl local up"
_AGAIN = "start it again, with all its jobs: trainctl local up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A controller's address.

    Attributes:
        address: host:port; several, with commas between, where controllers take turns.
        token: bearer token, or empty.
        origin: where the address was found, for messages.
        hint: what to do if nobody listens there.
        late_hint: what to do if somebody listens but does not answer.
        ca: whom to trust, PEM; None: the connection is not encrypted.
        ca_origin: where that was found, for messages.
        cause: code of the error that its controller ended with by itself, if nobody listens there for that.
    """

    address: str
    token: str
    origin: str
    hint: str = _START
    late_hint: str = "try again, or give it longer with --timeout; `trainctl doctor` tells more"
    ca: bytes | None = field(default=None, repr=False)
    ca_origin: str = ""
    cause: str = ""

    @property
    def in_clear(self) -> list[str]:
        """Those of the addresses to which the token would travel for others to read."""
        return beyond_loopback(self.address.split(",")) if self.token and self.ca is None else []


def find_endpoint(context: Context, settings: Settings) -> Endpoint:
    """The controller that the settings name, else the one of the local installation.

    Raises:
        UnavailableError: none is named, or the local one does not run.
        PermissionDeniedError: the token cannot be read.
        UsageError: the address is not host:port, or the token would travel unencrypted.
    """
    address, token_file = settings["address"], settings["tokenFile"]
    if not address.value:
        local = local_endpoint(context.run_dir, token_file.value)
        if not settings["caFile"].value:
            return local
        ca, ca_origin = _authority(context, settings)
        return replace(local, ca=ca, ca_origin=ca_origin)
    check_address(address.value, address.origin)
    ca, ca_origin = _authority(context, settings)
    hint, cause = _silence_hint(context, settings)
    endpoint = Endpoint(
        ca=ca,
        ca_origin=ca_origin,
        address=address.value,
        token=_token(context, address, token_file),
        origin=address.origin,
        hint=hint,
        cause=cause,
    )
    if endpoint.in_clear and not is_insecure(context):
        raise UsageError(
            f"{address.origin}: the token would travel unencrypted to {', '.join(endpoint.in_clear)}",
            hint="say whom to trust: --ca-file FILE, TRAINCTL_CA_FILE or caFile of the context (the controller's "
            "tls/ca.crt); or say --insecure if the network is your own",
        )
    return endpoint


def is_insecure(context: Context) -> bool:
    """Whether somebody said that the token may travel unencrypted."""
    return bool(getattr(context.options, "insecure", False)) or context.env.get("TRAINCTL_INSECURE", "") == "1"


def check_address(text: str, origin: str) -> None:
    """Raises: UsageError: it is not host:port; names its origin."""
    for one in text.split(","):
        host, _, port = one.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port[:9]) <= 65535:
            hint = "for example --address 127.0.0.1:7070; of several controllers HOST:PORT,HOST:PORT"
            raise UsageError(f"{origin}: expected HOST:PORT, found {quoted(one)}", hint=hint)


def _silence_hint(context: Context, settings: Settings) -> tuple[str, str]:
    """What to do if nobody answers at the named address, and the code of what is known to be behind that."""
    local = named_installation(context, settings)
    if local is None:
        return f"check {settings['address'].origin}; or {_START}", ""
    folder, controller = local
    where = context.dir_option(folder)
    if controller.alive:
        return frozen_hint(controller.process.pid, where), ""
    end = read_end(folder)
    return (f"{end}; {remedy(end, where)}", end.code) if end is not None else (f"{_AGAIN}{where}", "")


def _absent(what: str, run_dir: Path, again: str) -> UnavailableError:
    """None runs in the folder: why, if the newest one ended by itself."""
    end = read_end(run_dir)
    if end is None:
        return UnavailableError(what, hint=again)
    error = UnavailableError(f"{what}; {end}", hint=remedy(end))
    error.cause = end.code
    return error


def _token(context: Context, address: Found, token_file: Found) -> str:
    """The token for an address. One that belongs to another address must not travel there."""
    of_context = token_file.origin.startswith("context ")
    if token_file.value and (not of_context or token_file.origin == address.origin):
        return read_token(Path(token_file.value).expanduser())
    return _own_token(context.run_dir, address.value)


def _authority(context: Context, settings: Settings) -> tuple[bytes | None, str]:
    """Whom to trust at the named address, and where that was found; a context's is for its own address."""
    found, address = settings["caFile"], settings["address"]
    of_context = found.origin.startswith("context ")
    if found.value and (not of_context or not address.value or found.origin == address.origin):
        path = Path(found.value).expanduser()
        return read_authority(path, found.origin), f"the authority in {path}"
    controller = read_controller(context.run_dir)
    if controller is not None and controller.ca_file and controller.address == address.value:
        return read_authority(Path(controller.ca_file), CONTROLLER_FILE), f"the authority in {controller.ca_file}"
    return None, ""


def local_endpoint(run_dir: Path, token_file: str = "") -> Endpoint:
    """The controller of the local installation in ``run_dir``.

    Raises:
        UnavailableError: it does not run.
        PermissionDeniedError: its token cannot be read.
    """
    controller = read_controller(run_dir)
    if controller is None:
        what = f"no controller: no --address, no TRAINCTL_ADDRESS, no context, and none runs in {run_dir}"
        raise _absent(what, run_dir, _START)
    if not controller.alive:
        ended = f"process {controller.process.pid} has ended"
        raise _absent(f"the controller at {controller.address} is not running ({ended})", run_dir, _AGAIN)
    token = read_token(Path(token_file).expanduser() if token_file else run_dir / "token")
    frozen = frozen_hint(controller.process.pid)
    origin = str(run_dir / CONTROLLER_FILE)
    ca = read_authority(Path(controller.ca_file), origin) if controller.ca_file else None
    return Endpoint(
        address=controller.address,
        token=token,
        origin=origin,
        hint=frozen,
        late_hint=frozen,
        ca=ca,
        ca_origin=f"the authority in {controller.ca_file}",
    )


def named_installation(context: Context, settings: Settings) -> tuple[Path, LocalController] | None:
    """The local installation whose controller the address is of: the one by itself, or where the token file lies."""
    token_file = settings["tokenFile"].value
    folders = [context.run_dir, *([Path(token_file).expanduser().absolute().parent] if token_file else [])]
    for folder in folders:
        try:
            controller = read_controller(folder)
        except TrainctlError:
            continue
        if controller is not None and controller.address == settings["address"].value:
            return folder, controller
    return None


def _own_token(run_dir: Path, address: str) -> str:
    """The local token, but only for the local controller: it must not travel to anybody else."""
    controller = read_controller(run_dir)
    return read_token(run_dir / "token") if controller is not None and controller.address == address else ""


def timeout_s(settings: Settings) -> float:
    """The deadline of a request in seconds.

    Raises:
        UsageError: it is not a duration from 1ms to 1h.
    """
    found = settings["timeout"]
    flag = found.origin if found.origin.startswith(("--", "TRAINCTL")) else f"timeout ({found.origin})"
    return duration_option_s(flag, found.value, most_s=MAX_TIMEOUT_S)


def duration_option_s(flag: str, text: str, *, most_s: float = 366 * 86400.0) -> float:
    """Seconds of a duration given on the command line.

    Raises:
        UsageError: it is not a duration of at least a millisecond and at most ``most_s``.
    """
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"for example {flag} 30s") from error
    if not 0.001 <= seconds <= most_s:
        raise UsageError(
            f"{flag}: expected 1ms to {format_duration(most_s)}, found {quoted(text)}", hint=f"for example {flag} 30s"
        )
    return seconds
