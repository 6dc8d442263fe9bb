"""A channel to whichever of several controllers leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc


class FollowingChannel:
    """Looks like a channel to the stubs; each call goes to the address that is current at that moment.

    Args:
        addresses: ``host:port`` of each controller.
        options: of the real channels.
        ca: whom to trust, PEM; None: they are not encrypted.
    """

    def __init__(self, addresses: Sequence[str], options: Sequence[tuple[str, Any]], ca: bytes | None = None) -> None:
        self._credentials = grpc.ssl_channel_credentials(ca) if ca is not None else None
        self._addresses = tuple(addresses)
        self._options = options
        self._turn = 0
        self._channel: grpc.Channel | None = None

    @property
    def address(self) -> str:
        """Where the next call goes."""
        return self._addresses[self._turn % len(self._addresses)]

    def follow(self) -> bool:
        """The current one does not lead, or does not answer; False once all of them have had their turn."""
        self.close()
        self._turn += 1
        return self._turn % len(self._addresses) != 0

    def close(self) -> None:
        """Closes the connection; the next call opens one."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def unary_unary(self, method: str, *coders: Any, **options: Any) -> Callable[..., Any]:
        """See ``grpc.Channel.unary_unary``."""
        return lambda *call, **extra: self._open().unary_unary(method, *coders, **options)(*call, **extra)

    def unary_stream(self, method: str, *coders: Any, **options: Any) -> Callable[..., Any]:
        """See ``grpc.Channel.unary_stream``."""
        return lambda *call, **extra: self._open().unary_stream(method, *coders, **options)(*call, **extra)

    def _open(self) -> grpc.Channel:
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.insecure_channel(self.address, options=self._options)
            else:
                self._channel = grpc.secure_channel(self.address, self._credentials, options=self._options)
        return self._channel
