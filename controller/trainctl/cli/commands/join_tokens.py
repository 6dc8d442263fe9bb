"""``trainctl nodes join-token|join-tokens|revoke-join-token``."""

from __future__ import annotations

import time
from pathlib import Path

from trainctl.cli import exit_codes
from trainctl.cli.connection.client import connect
from trainctl.cli.connection.connecting import duration_option_s
from trainctl.cli.context import Context
from trainctl.cli.output import emit, is_table, plain
from trainctl.cli.secret_file import write_secret
from trainctl.cli.terminal.style import table
from trainctl.cli.terminal.times import rough
from trainctl.core.errors import ConflictError, PermissionDeniedError
from trainctl.protos.v1.join_pb2 import (
    CreateJoinTokenRequest,
    JoinToken,
    ListJoinTokensRequest,
    RevokeJoinTokenRequest,
)


def create(context: Context) -> int:
    """Makes a join token and shows it, or writes it to a file."""
    options = context.options
    path = Path(options.out).expanduser() if options.out else None
    if path is not None and path.exists():
        raise ConflictError(f"{path} exists", hint="remove it, or name another file with --out")
    ttl_s = duration_option_s("--ttl", options.ttl)
    request = CreateJoinTokenRequest(node=options.node, ttl_s=ttl_s, uses=options.uses)
    with connect(context) as client:
        answer = client.call(client.join_tokens.CreateJoinToken, request)
        if path is not None:
            try:
                write_secret(path, answer.text)
            except OSError as error:
                client.call(client.join_tokens.RevokeJoinToken, RevokeJoinTokenRequest(id=answer.token.id))
                raise PermissionDeniedError(
                    f"cannot write {path}: {error.strerror}; the token is revoked again", hint="name another file"
                ) from error
    token = answer.token
    data = {"token": plain(token), **({"file": str(path)} if path is not None else {"text": answer.text})}
    lines = [f"join token {token.id} is in {path}"] if path is not None else [answer.text]
    emit(context, data, table=lambda: lines, names=[token.id])
    if is_table(context):
        context.console.say(f"for {token.node or 'any new node'}, {_state(token, time.time())}")
        context.console.say("on that machine: trainctl-agent --join-token-file FILE --controller HOST:PORT ...")
    return exit_codes.OK


def list_tokens(context: Context) -> int:
    """Shows the join tokens."""
    with connect(context) as client:
        found = client.call(client.join_tokens.ListJoinTokens, ListJoinTokensRequest()).tokens
    now_s = time.time()
    rows = [(token.id, token.node or "any", _state(token, now_s)) for token in found]
    emit(
        context,
        {"tokens": [plain(token) for token in found]},
        table=lambda: table(("ID", "NODE", "STATE"), rows, style=context.console.style()),
        names=[token.id for token in found],
    )
    return exit_codes.OK


def revoke(context: Context) -> int:
    """Takes a join token back."""
    with connect(context) as client:
        request = RevokeJoinTokenRequest(id=context.options.id)
        token = client.call(client.join_tokens.RevokeJoinToken, request).token
    words = f"join token {token.id} is revoked; nodes that joined with it stay"
    emit(context, plain(token), table=lambda: [words], names=[token.id])
    return exit_codes.OK


def _state(token: JoinToken, now_s: float) -> str:
    if token.revoked:
        return "revoked"
    if token.expires_s and token.expires_s <= now_s:
        return "expired"
    if token.uses_left == 0:
        return "used up"
    left = "no end" if not token.expires_s else f"{rough(token.expires_s - now_s)} left"
    uses = "any number of nodes" if token.uses_left < 0 else f"{token.uses_left} more to join"
    return f"{left}, {uses}"
