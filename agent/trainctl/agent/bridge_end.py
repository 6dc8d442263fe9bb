"""The agent's end of a worker's bridge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from trainctl.core.codec import WireError
from trainctl.parallel.bridge import Instruct, Message, MessageReader, encode

_LOG = logging.getLogger(__name__)


class BridgeEnd(asyncio.Protocol):
    """Reads a worker's messages and sends it instructions.

    Args:
        hear: called with each message; raises WireError at one that cannot be.
    """

    def __init__(self, hear: Callable[[Message], None]) -> None:
        self._hear = hear
        self._reader = MessageReader()
        self._transport: asyncio.Transport | None = None
        self.ended = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of ``asyncio.Protocol``."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Part of ``asyncio.Protocol``."""
        try:
            for message in self._reader.feed(data):
                self._hear(message)
        except WireError as error:
            _LOG.error("a worker sent what cannot be told on, so its bridge is cut and it ends: %s", error)
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of ``asyncio.Protocol``."""
        self.ended.set()

    def send(self, message: Instruct) -> None:
        """Sends without waiting: instructions are few, and a frozen worker must not freeze its agent."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(encode(message))

    def close(self) -> None:
        """Cuts the bridge; the worker, should it live, ends."""
        if self._transport is not None:
            self._transport.abort()
