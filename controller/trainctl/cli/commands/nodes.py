"""``trainctl nodes describe|cordon|uncordon|drain``; ``nodes list`` is ``get nodes``."""

from __future__ import annotations

import time
import uuid

from trainctl.cli import exit_codes
from trainctl.cli.commands.get import list_nodes
from trainctl.cli.connection.client import Client, connect
from trainctl.cli.context import Context
from trainctl.cli.output import emit, plain
from trainctl.cli.render.node import describe as described
from trainctl.core.errors import NotFoundError
from trainctl.core.texts import quoted
from trainctl.core.units import format_count
from trainctl.protos.v1.job_pb2 import CordonNodeRequest, NodeStatus, UncordonNodeRequest

LOOK_EVERY_S = 0.5


def describe(context: Context) -> int:
    """Shows one node."""
    return describe_node(context, context.options.node)


def describe_node(context: Context, name: str) -> int:
    """Shows the node of this name.

    Raises:
        NotFoundError: there is none.
    """
    with connect(context) as client:
        node = _find(client, name)
    style = context.console.style()
    emit(context, plain(node), table=lambda: described(node, style=style), names=[node.node])
    return exit_codes.OK


def cordon(context: Context) -> int:
    """Gives a node no new work."""
    return _show(context, _cordon(context, drain=False), "gets no new work; what runs there goes on")


def uncordon(context: Context) -> int:
    """Gives a node work again."""
    request = UncordonNodeRequest(node=context.options.node, request_id=_begin(context))
    with connect(context) as client:
        node = client.call(client.stub.UncordonNode, request).node
    return _show(context, node, "takes work again")


def drain(context: Context) -> int:
    """Gives a node no new work and moves its workers away."""
    node = _cordon(context, drain=True)
    if not context.options.wait:
        return _show(context, node, _left(node))
    context.request_id = ""
    context.on_interrupt = (
        f"detached: the drain of {node.node} goes on",
        f"see how far it is with: trainctl nodes describe {node.node}",
    )
    said = ""
    while node.slots_used:
        if (words := _left(node)) != said:
            context.console.say(f"{node.node} {words}")
            said = words
        time.sleep(LOOK_EVERY_S)
        with connect(context) as client:
            node = _find(client, node.node)
    return _show(context, node, _left(node))


def _left(node: NodeStatus) -> str:
    """Who is still on a draining node, and why."""
    if not node.slots_used:
        return "is empty: it can be taken away"
    jobs = "; ".join(f"job {job.name}: {job.waiting}" for job in node.jobs)
    return f"is being emptied, {node.slots_used} of {format_count(node.slots, 'slot')} taken: {jobs}"


def _cordon(context: Context, *, drain: bool) -> NodeStatus:
    request = CordonNodeRequest(node=context.options.node, request_id=_begin(context), drain=drain)
    with connect(context) as client:
        return client.call(client.stub.CordonNode, request).node


def _begin(context: Context) -> str:
    context.request_id = context.options.request_id or str(uuid.uuid4())
    context.on_interrupt = ("interrupted; whether it was done shows: trainctl nodes describe " + context.options.node,)
    return context.request_id


def _show(context: Context, node: NodeStatus, words: str) -> int:
    emit(context, plain(node), table=lambda: [f"node {node.node} {words}"], names=[node.node])
    return exit_codes.OK


def _find(client: Client, name: str) -> NodeStatus:
    """Raises: NotFoundError: there is no such node; names those that there are."""
    found = list_nodes(client)
    node = next((node for node in found if node.node == name), None)
    if node is None:
        known = ", ".join(node.node for node in found) or "none yet"
        raise NotFoundError(f"no node {quoted(name)}; known nodes: {known}", hint="`trainctl nodes list` lists them")
    return node
