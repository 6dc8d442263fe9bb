"""The grammar of tokens and of the audit log."""

from __future__ import annotations

from typing import Any

from trainctl.cli.grammar.arguments import add_command, add_group, add_output, add_request_id
from trainctl.cli.grammar.operate import add_yes

ROLES = ("viewer", "submitter", "operator", "admin")


def add_access(commands: Any) -> None:
    """Adds the commands."""
    tokens = add_group(
        commands,
        "tokens",
        "tokens for people and programs, with a role in a tenant",
        examples=(
            "trainctl tokens create alice --role submitter --tenant research --out alice.token",
            "trainctl tokens list",
            "trainctl tokens whoami",
        ),
    )
    _add_create(tokens)
    listed = add_command(
        tokens,
        "list",
        "tokens:list_tokens",
        "list the tokens that you could have made",
        examples=("trainctl tokens list",),
    )
    add_output(listed)
    revoke = add_command(
        tokens,
        "revoke",
        "tokens:revoke",
        "end a token now, and the streams that it holds open",
        examples=("trainctl tokens revoke 3f9c01ab -y",),
    )
    revoke.add_argument("id", metavar="ID", help="its id, as `trainctl tokens list` shows it")
    add_yes(revoke)
    add_output(revoke)
    whoami = add_command(
        tokens, "whoami", "tokens:whoami", "show who you are, and what you may", examples=("trainctl tokens whoami",)
    )
    add_output(whoami)
    _add_audit(commands)


def _add_create(tokens: Any) -> None:
    create = add_command(
        tokens,
        "create",
        "tokens:create",
        "make a token for somebody; it is shown once",
        examples=(
            "trainctl tokens create alice --role submitter --tenant research --out alice.token",
            "trainctl tokens create night-watch --role operator --tenant '*' --ttl 90d",
        ),
    )
    create.add_argument("name", metavar="WHOM", help="who gets it: letters, digits and . _ @ -")
    create.add_argument("--role", choices=ROLES, required=True, help="what it allows in the tenant of --tenant")
    create.add_argument("--ttl", metavar="DURATION", default="30d", help="how long it is good, or never (30d)")
    create.add_argument("--out", metavar="FILE", help="write it there, readable for you only, and do not show it")
    add_request_id(create)
    add_output(create)


def _add_audit(commands: Any) -> None:
    audit = add_command(
        commands,
        "audit",
        "audit:run",
        "show who asked for which change, and who was refused",
        examples=("trainctl audit --since 1h", "trainctl audit --who alice -o json"),
    )
    audit.add_argument("--since", metavar="WHEN", help="only newer ones: an age such as 10m, or an RFC 3339 time")
    audit.add_argument("--who", metavar="WHOM", help="only of this name or token id")
    audit.add_argument("--job", metavar="NAME", help="only about this job (or node, or token), as it was named")
    add_output(audit)
