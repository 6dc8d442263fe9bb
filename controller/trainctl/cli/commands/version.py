"""``trainctl version``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.terminal.times import rfc3339, rough
from trainctl.protos.version import WIRE_VERSION, package_version

if TYPE_CHECKING:
    from trainctl.cli.connection.certificates import Certificates


def run(context: Context) -> int:
    """Shows the version of this command, and of the controller unless ``--client``."""
    data: dict[str, Any] = {"client": {"version": package_version(), "wireVersion": WIRE_VERSION}}
    found: Certificates | None = None
    if not context.options.client:
        from trainctl.cli.commands.tokens import who_am_i
        from trainctl.cli.connection.certificates import look_at
        from trainctl.cli.connection.client import connect
        from trainctl.protos.v1.job_pb2 import GetVersionRequest

        with connect(context) as client:
            data["controller"] = plain(client.call(client.stub.GetVersion, GetVersionRequest()))
            if (me := who_am_i(client)) is not None:
                data["caller"] = plain(me)
            found = look_at(client.endpoint)
            if found is not None:
                data["certificates"] = {"controller": rfc3339(found.controller), "authority": rfc3339(found.authority)}
    emit(
        context,
        data,
        table=lambda: _lines(data, found),
        names=[data["client"]["version"]],
    )
    return exit_codes.OK


def _lines(data: dict[str, Any], found: Certificates | None) -> list[str]:
    sides = [(side, data[side]) for side in ("client", "controller") if side in data]
    lines = [f"{side:<11} {facts['version']} (wire {facts['wireVersion']})" for side, facts in sides]
    if "caller" in data:
        token = data["caller"]["tokenId"]
        lines.append(f"{'you':<11} {data['caller']['name']}" + (f" (token {token})" if token else ""))
    if found is None:
        return lines
    now_s = time.time()
    own, authority = rough(found.controller - now_s), rough(found.authority - now_s)
    return [*lines, f"certificates: the controller's has {own} left, the authority's {authority}"]
