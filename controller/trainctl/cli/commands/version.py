"""``trainctl version``."""

from __future__ import annotations

from typing import Any

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.protos.version import WIRE_VERSION, package_version


def run(context: Context) -> int:
    """Shows the version of this command, and of the controller unless ``--client``."""
    data: dict[str, Any] = {"client": {"version": package_version(), "wireVersion": WIRE_VERSION}}
    if not context.options.client:
        from trainctl.cli.client import connect
        from trainctl.protos.v1.job_pb2 import GetVersionRequest

        with connect(context) as client:
            data["controller"] = plain(client.call(client.stub.GetVersion, GetVersionRequest()))
    emit(
        context,
        data,
        table=lambda: [f"{side:<11} {facts['version']} (wire {facts['wireVersion']})" for side, facts in data.items()],
        names=[data["client"]["version"]],
    )
    return exit_codes.OK
