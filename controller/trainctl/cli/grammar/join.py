"""The grammar of join tokens, with which machines become nodes where connections are encrypted."""

from __future__ import annotations

from typing import Any

from trainctl.cli.grammar.arguments import add_command, add_output


def add_join_tokens(nodes: Any) -> None:
    """Adds the commands behind the word ``nodes``."""
    create = add_command(
        nodes,
        "join-token",
        "join_tokens:create",
        "make a join token, with which a machine becomes a node; it is shown once",
        examples=(
            "trainctl nodes join-token --ttl 1h --out gpu-17.join",
            "trainctl nodes join-token --node gpu-17",
            "trainctl nodes join-token --uses 8",
        ),
    )
    create.add_argument("--ttl", metavar="DURATION", default="1h", help="how long it is good (1h)")
    create.add_argument(
        "--node", metavar="NODE", default="", help="only for this node, which may take another machine's place"
    )
    create.add_argument("--uses", metavar="N", type=int, default=1, help="how many nodes can join with it (1)")
    create.add_argument("--out", metavar="FILE", help="write it there, readable for you only, and do not show it")
    add_output(create)
    listed = add_command(
        nodes,
        "join-tokens",
        "join_tokens:list_tokens",
        "list the join tokens, without their secrets",
        examples=("trainctl nodes join-tokens",),
    )
    add_output(listed)
    revoke = add_command(
        nodes,
        "revoke-join-token",
        "join_tokens:revoke",
        "let nobody join with a token any more; nodes that did stay",
        examples=("trainctl nodes revoke-join-token 3f9c01ab",),
    )
    revoke.add_argument("id", metavar="ID", help="its id, as `trainctl nodes join-tokens` shows it")
    add_output(revoke)
