"""``trainctl audit``."""

from __future__ import annotations

from trainctl.cli import exit_codes
from trainctl.cli.connection.client import connect
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.terminal.style import table
from trainctl.cli.terminal.times import rfc3339, since
from trainctl.protos.v1.access_pb2 import AuditRecord, ListAuditRequest

_PAGE = 500
_GOING_ON = "going on"


def run(context: Context) -> int:
    """Shows what was asked for, oldest first."""
    options = context.options
    request = ListAuditRequest(
        since_s=since(options.since), who=options.who or "", subject=options.job or "", limit=_PAGE
    )
    records: list[AuditRecord] = []
    with connect(context) as client:
        while True:
            answer = client.call(client.access.ListAudit, request)
            records += answer.records
            if not answer.next_after:
                break
            request.after = answer.next_after
    style, wide = context.console.style(), options.output == "wide"
    more = ("PEER", "EPOCH", "REQUEST ID", "WHY") if wide else ()
    emit(
        context,
        {"records": [plain(record) for record in records]},
        table=lambda: table(
            ("NUMBER", "TIME", "WHO", "ASKED FOR", "OF", "OUTCOME", *more),
            [_row(record, wide=wide) for record in records],
            style=style,
            right="NUMBER",
        ),
        names=[str(record.number) for record in records],
    )
    return exit_codes.OK


def _row(record: AuditRecord, *, wide: bool) -> tuple[str, ...]:
    who = f"{record.name} ({record.token_id})" if record.token_id else record.name
    of = f"{record.tenant}/{record.subject}" if record.tenant and record.subject else record.subject or record.tenant
    row = (str(record.number), rfc3339(record.time_s), who, record.method, of or "-", record.outcome or _GOING_ON)
    why = record.reason or "-"
    left_out = f" ({record.left_out} more before it)" if record.left_out else ""
    return (*row, record.peer, str(record.epoch), record.request_id or "-", why + left_out) if wide else row
