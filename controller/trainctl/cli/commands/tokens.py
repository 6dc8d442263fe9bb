"""``trainctl tokens create|list|revoke|whoami``."""

from __future__ import annotations

import time
import uuid
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.commands.cancel import confirm
from trainctl.cli.config.settings import resolve
from trainctl.cli.connection.client import Client, connect
from trainctl.cli.connection.tenant import check_tenant
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.secret_file import write_secret
from trainctl.cli.terminal.style import table
from trainctl.cli.terminal.times import rfc3339, rough
from trainctl.core.errors import ConflictError, PermissionDeniedError, PreconditionError, UsageError
from trainctl.core.ids import DEFAULT_TENANT
from trainctl.core.units import parse_duration_s
from trainctl.protos.v1.access_pb2 import (
    CreateTokenRequest,
    CreateTokenResponse,
    Grant,
    ListTokensRequest,
    RevokeTokenRequest,
    Token,
    WhoAmIRequest,
    WhoAmIResponse,
)

_ALL = "*"
_NEVER = "never"


def create(context: Context) -> int:
    """Makes a token and shows it, or writes it to a file."""
    options = context.options
    tenant = resolve(context)["tenant"]
    if tenant.value not in ("", _ALL):
        check_tenant(tenant.value, tenant.origin)
    context.tenant = DEFAULT_TENANT  # the connection's own does not matter, and may not be *
    path = Path(options.out).expanduser() if options.out else None
    if path is not None and path.exists():
        raise ConflictError(f"{path} exists", hint="remove it, or name another file with --out")
    context.request_id = options.request_id or str(uuid.uuid4())
    request = CreateTokenRequest(
        name=options.name,
        grants=[Grant(tenant=tenant.value or DEFAULT_TENANT, role=options.role)],
        ttl_s=_ttl_s(options.ttl),
        request_id=context.request_id,
    )
    with connect(context) as client:
        answer = client.call(client.access.CreateToken, request)
        if path is not None:
            try:
                write_secret(path, answer.secret)
            except OSError as error:
                client.call(client.access.RevokeToken, RevokeTokenRequest(id=answer.token.id))
                raise PermissionDeniedError(
                    f"cannot write {path}: {error.strerror}; the token is revoked again", hint="name another file"
                ) from error
    context.request_id = ""
    _show_created(context, answer, path)
    return exit_codes.OK


def _show_created(context: Context, answer: CreateTokenResponse, path: Path | None) -> None:
    token = answer.token
    data = {"token": plain(token), **({"file": str(path)} if path is not None else {"secret": answer.secret})}
    lines = [f"token {token.id} of {token.name} is in {path}"] if path is not None else [answer.secret]
    emit(context, data, table=lambda: lines, names=[token.id])
    if not is_table(context):
        return
    context.console.say(f"{token.name}: {_grants(token)}; {_end(token, time.time())}")
    if path is None:
        context.console.say("it is shown this once; who has it puts it into a file, and names that with --token-file")


def list_tokens(context: Context) -> int:
    """Shows all tokens, ended ones, too."""
    with connect(context) as client:
        found = client.call(client.access.ListTokens, ListTokensRequest()).tokens
    now_s, style = time.time(), context.console.style()
    rows = [(one.id, one.name, _grants(one), _end(one, now_s), one.created_by) for one in found]
    emit(
        context,
        {"tokens": [plain(one) for one in found]},
        table=lambda: table(("ID", "NAME", "MAY", "UNTIL", "MADE BY"), rows, style=style),
        names=[one.id for one in found],
    )
    return exit_codes.OK


def revoke(context: Context) -> int:
    """Ends a token."""
    options = context.options
    if not options.yes and not confirm(f"revoke token {options.id}? who uses it is cut off at once"):
        context.console.say("nothing was changed")
        return exit_codes.FAILURE
    with connect(context) as client:
        token = client.call(client.access.RevokeToken, RevokeTokenRequest(id=options.id)).token
    words = f"token {token.id} of {token.name} is revoked"
    emit(context, plain(token), table=lambda: [words], names=[token.id])
    return exit_codes.OK


def whoami(context: Context) -> int:
    """Shows who the controller takes the caller for."""
    with connect(context) as client:
        me = client.call(client.access.WhoAmI, WhoAmIRequest())
    named = f"{me.name} (token {me.token_id})" if me.token_id else "the controller's own token: its administrator"
    lines = [
        f"you are   {named}",
        f"you may   {_grants(me)}",
        f"tenant    {resolve(context)['tenant'].value or me.home_tenant}",
        *([f"until     {rfc3339(me.expires_s)}"] if me.expires_s else []),
    ]
    emit(context, plain(me), table=lambda: lines, names=[me.name])
    return exit_codes.OK


def who_am_i(client: Client) -> WhoAmIResponse | None:
    """Who the controller takes the caller for; None if it is too old to say."""
    try:
        return client.call(client.access.WhoAmI, WhoAmIRequest())
    except PreconditionError as error:
        if error.code == "UNIMPLEMENTED":
            return None
        raise


def _ttl_s(text: str) -> float:
    if text == _NEVER:
        return 0.0
    try:
        seconds = parse_duration_s(text)
    except ValueError as error:
        raise UsageError(f"--ttl: {error}", hint="for example --ttl 30d, or --ttl never") from error
    if seconds <= 0:
        raise UsageError(f"--ttl: expected more than {text}", hint="for example --ttl 30d, or --ttl never")
    return seconds


def _grants(token: Token | WhoAmIResponse) -> str:
    return (
        ", ".join(f"{one.role} in {'all tenants' if one.tenant == _ALL else one.tenant}" for one in token.grants) or "-"
    )


def _end(token: Token, now_s: float) -> str:
    if token.revoked_s:
        return "revoked"
    if not token.expires_s:
        return "no end"
    left_s = token.expires_s - now_s
    return f"{rough(left_s)} left" if left_s > 0 else "expired"
