"""``get ... -w``: what there is, then a line for each thing that changes, over any number of controller restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from trainctl.cli.connection.client import Client
from trainctl.cli.context import Context
from trainctl.cli.output import is_table, stream_item
from trainctl.cli.streams.resume import resume

EVERY_S = 1.0

T = TypeVar("T")


def watch_rows(
    context: Context,
    look: Callable[[Client], Sequence[T]],
    *,
    key: Callable[[T], str],
    state: Callable[[T], object],
    data: Callable[[T], Mapping[str, Any]],
    lines: Callable[[Sequence[T]], list[str]],
    name: Callable[[T], str],
    until: Callable[[], bool] = lambda: False,
) -> None:
    """Looks every ``EVERY_S`` seconds and writes what is new or has changed since it was last written.

    What is there no longer is told on stderr: it has no row and no data to write.

    Args:
        context: where to write, in which form.
        look: asks for all things.
        key: tells them apart.
        state: what of one has to change to make it worth a line.
        data: one for machines.
        lines: some as a table, with its header.
        name: one as ``-o name`` shows it.
        until: asked after each look: whether that was the last.
    """
    context.on_interrupt = ("interrupted: nothing was changed",)
    shown: dict[str, object] = {}
    names: dict[str, str] = {}
    headed = False
    for found in resume(context, lambda client: _looks(client, look, until)):
        fresh = [each for each in found if shown.get(key(each), _NOTHING) != state(each)]
        shown = {key(each): state(each) for each in found}
        for gone in names.keys() - shown.keys():
            context.console.say(f"{names[gone]} is there no longer")
        names = {key(each): name(each) for each in found}
        if not fresh:
            continue
        if is_table(context):
            text = lines(fresh)
            context.console.data(text[1:] if headed else text)
            headed = True
        elif context.options.output == "name":
            context.console.data([name(each) for each in fresh])
        else:
            form, ascii_only = context.options.output, context.console.ascii_only
            context.console.data([stream_item(data(each), form, ascii_only=ascii_only) for each in fresh])


_NOTHING = object()


def _looks(client: Client, look: Callable[[Client], Sequence[T]], until: Callable[[], bool]) -> Iterator[Sequence[T]]:
    while True:
        yield look(client)
        if until():
            return
        time.sleep(EVERY_S)
