"""``trainctl __complete -- WORDS``: what may stand where the last word begins; for shells, so never an error."""

from __future__ import annotations

from collections.abc import Iterable

from trainctl.cli import exit_codes
from trainctl.cli.context import Context
from trainctl.cli.grammar.completing import Names, candidates
from trainctl.cli.grammar.parser import build_parser

ANSWER_S = 0.3
"""Who types does not wait longer for names."""


def run(context: Context) -> int:
    """Prints one candidate a line; nothing at all where something is wrong."""
    context.console.quiet = True
    try:
        found = candidates(build_parser(), context.options.words)
        names = found if not isinstance(found, Names) else _begins(_names(context, found), found.beginning)
        context.console.data(names)
    except Exception:
        return exit_codes.FAILURE
    return exit_codes.OK


def _begins(names: Iterable[str], beginning: str) -> list[str]:
    return sorted({name for name in names if name.startswith(beginning)})


def _names(context: Context, wanted: Names) -> list[str]:
    if wanted.kind == "context":
        from trainctl.cli.config.file import read_config

        return list(read_config(context.env).contexts)
    from trainctl.cli.config.settings import resolve
    from trainctl.cli.connection.client import Client, list_jobs
    from trainctl.cli.connection.connecting import find_endpoint

    settings = resolve(context)
    endpoint = find_endpoint(context, settings)
    with Client(endpoint, timeout_s=ANSWER_S, retries=False, tenant=settings["tenant"].value) as client:
        if wanted.kind == "node":
            from trainctl.protos.v1.job_pb2 import ListNodesRequest

            return [node.node for node in client.call(client.stub.ListNodes, ListNodesRequest()).nodes]
        return [job.spec.metadata.name for job in list_jobs(client)]
