"""Why two sides that are both there do not come together over TLS, in words: what was expected, found, what to do.

``judge`` is a pure function of what a probe saw.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from trainctl.core.errors import UnavailableError
from trainctl.core.units import format_time
from trainctl.protos.tls_probe import PROBE_S, Seen, Shown, life_of, probe

_EXPIRED, _NOT_YET = 10, 9
_UNTRUSTED = (2, 18, 19, 20, 21)
"""X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, two of self-signed ones, and so on."""
_NAMES = (62, 64)
_OWN_UNREADABLE = -1
_GET_CA = "copy ca.crt from the folder tls of the controller's --dir"


class TlsFailedError(UnavailableError):
    """Somebody listens, but the two sides do not come together over TLS."""

    code = "TLS_FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """How a client means to talk.

    Attributes:
        ca: whom it trusts, PEM; None: without TLS.
        ca_origin: where that was found, for messages.
        certificate, key: its own, PEM; None: it has none.
        ends_s: when its own expires.
        how_ca: how to name another authority, for messages.
        how_clear: added to the hint where the other side speaks in clear; empty: nothing.
        how_tls: how to come to speak TLS at all, for messages; empty: by naming an authority.
    """

    ca: bytes | None
    ca_origin: str = "the given authority"
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    ends_s: float = 0.0
    how_ca: str = "--ca-file FILE"
    how_clear: str = ""
    how_tls: str = ""


def why_not(target: str, wanted: Wanted, *, within_s: float = PROBE_S) -> TlsFailedError | None:
    """Looks what is wrong with ``host:port``; None if TLS has nothing to do with it. May take all of ``within_s``."""
    return look(target, wanted, within_s=within_s)[1]


def look(target: str, wanted: Wanted, *, within_s: float = PROBE_S) -> tuple[Seen, TlsFailedError | None]:
    """What is to be seen at ``host:port``, and the same as ``why_not``."""
    try:
        seen = probe(target, ca=wanted.ca, certificate=wanted.certificate, key=wanted.key, within_s=within_s)
    except (OSError, ValueError):
        return Seen(connected=False), None
    return seen, judge(target, wanted, seen, time.time())


def judge(target: str, wanted: Wanted, seen: Seen, now_s: float) -> TlsFailedError | None:
    """What is wrong; None if TLS has nothing to do with it.

    Args:
        target: ``host:port``.
        wanted: how the client means to talk.
        seen: what a probe saw there.
        now_s: Unix time of this machine.
    """
    if not seen.connected:
        return None
    if wanted.ca is None:
        if not seen.speaks_tls:
            return None
        return TlsFailedError(
            f"{target} expects TLS, and this side spoke in clear",
            hint=wanted.how_tls or f"say whom to trust: {wanted.how_ca}; {_GET_CA}",
        )
    if not seen.speaks_tls:
        return TlsFailedError(
            f"expected TLS at {target}, found something that speaks in clear",
            hint="start the controller with --tls; or is it another port?" + wanted.how_clear,
        )
    if seen.verify_code:
        return _distrust(target, wanted, seen, now_s)
    return _refused(target, wanted, seen.alert, now_s) if seen.alert else None


def _distrust(target: str, wanted: Wanted, seen: Seen, now_s: float) -> TlsFailedError:
    """Our side does not take the server's certificate."""
    code, shown = seen.verify_code, seen.shown or Shown(names=(), issuer="?", begins_s=0.0, ends_s=0.0)
    if code == _OWN_UNREADABLE:
        return TlsFailedError(f"{wanted.ca_origin}: {seen.verify_text}", hint=f"expected PEM; {_GET_CA}")
    if code in (_EXPIRED, _NOT_YET):
        life = life_of(wanted.ca)
        if life is not None and not life[0] <= now_s < life[1]:  # it is not the server's own
            return TlsFailedError(
                f"{wanted.ca_origin} is good from {format_time(life[0])} to {format_time(life[1])}; by this machine's "
                f"clock it is {format_time(now_s)}",
                hint="is this machine's clock right? else the authority is to be replaced, and whoever trusts it is "
                "told the new one",
            )
        return TlsFailedError(
            f"the certificate that {target} shows is good from {format_time(shown.begins_s)} to "
            f"{format_time(shown.ends_s)}; by this machine's clock it is {format_time(now_s)}",
            hint="is this machine's clock right? else: the controller renews its own certificate by itself, one given "
            "with --tls-cert has to be renewed by whoever made it; and an authority can expire, too",
        )
    if code in _UNTRUSTED:
        return TlsFailedError(
            f"the certificate that {target} shows was not issued by {wanted.ca_origin}, but by {shown.issuer}",
            hint=f"is it the controller that you mean? then {_GET_CA}, and name it: {wanted.how_ca}",
        )
    if code in _NAMES:
        host = target.rpartition(":")[0]
        return TlsFailedError(
            f"the certificate that {target} shows is for {', '.join(shown.names) or 'no name'}, not for {host}",
            hint=f"use one of these names, or start the controller with --tls-name {host}",
        )
    return TlsFailedError(
        f"the certificate that {target} shows cannot be trusted: {seen.verify_text}", hint=f"{_GET_CA}: {wanted.how_ca}"
    )


def _refused(target: str, wanted: Wanted, alert: str, now_s: float) -> TlsFailedError:
    """The server does not take our side."""
    if wanted.certificate is None:
        return TlsFailedError(
            f"{target} expects the certificate of a client, and this side has none ({alert.lower()})",
            hint="that is the port of the agents: people and `trainctl-agent --controller` use the other one",
        )
    if 0 < wanted.ends_s <= now_s:
        return TlsFailedError(
            f"{target} refused this side's certificate: it expired at {format_time(wanted.ends_s)}, "
            f"it is now {format_time(now_s)}",
            hint="join again: trainctl nodes join-token",
        )
    return TlsFailedError(
        f"{target} refused this side's certificate ({alert.lower().replace('_', ' ')})",
        hint="was it issued by the authority of this installation, and are the clocks of both machines right?",
    )
