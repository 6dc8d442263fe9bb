"""Why an etcd that is there says nothing: gRPC only knows that nobody answers, so somebody looks with plain sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

from trainctl.controller.store.etcd.address import EtcdAddress
from trainctl.controller.store.port import StoreUnavailableError
from trainctl.protos.tls_failures import Wanted, look
from trainctl.protos.tls_probe import Seen, life_of


async def explain_silence(address: EtcdAddress) -> StoreUnavailableError | None:
    """What certificates have to do with it, if anything. Takes a few seconds at most."""
    looks = (asyncio.to_thread(_look, address, member) for member in address.members)
    found = await asyncio.gather(*looks)
    return next((error for error in found if error is not None), None)


def _look(address: EtcdAddress, member: str) -> StoreUnavailableError | None:
    try:
        ca, certificate, key = (_read(path) for path in (address.ca, address.cert, address.key))
    except OSError:
        return None
    life = life_of(certificate)
    wanted = Wanted(
        ca=ca,
        ca_origin=f"the authority in {address.ca}",
        certificate=certificate,
        key=key,
        ends_s=life[1] if life is not None else 0.0,
    )
    seen, found = look(member, wanted)
    if found is None or (address.server_name and _is_name_only(seen)):
        return None  # the name is checked against another one than that of the host
    return StoreUnavailableError(f"etcd: {found}", hint=_hint(address, seen))


def _is_name_only(seen: Seen) -> bool:
    return seen.verify_code in (62, 64)


def _hint(address: EtcdAddress, seen: Seen) -> str:
    if not address.tls:
        return "name ca (and cert and key, if it wants to see a client's certificate) in the store's address"
    if not seen.speaks_tls:
        return "leave ca, cert and key out of the store's address, or let etcd speak TLS (its --cert-file, --key-file)"
    if seen.verify_code:
        return "look at ca and server-name in the store's address, at etcd's --cert-file, and at this machine's clock"
    if address.cert is None:
        return "this etcd wants to see a client's certificate: name cert and key in the store's address, too"
    return f"look at {address.cert}: is it still good, and does etcd's --trusted-ca-file know who issued it?"


def _read(path: Path | None) -> bytes | None:
    return path.read_bytes() if path is not None else None
