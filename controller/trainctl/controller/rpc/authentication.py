"""From what a call carries to who makes it."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any, Protocol

from trainctl.controller.access.caller import ALL_TENANTS, Caller, Grant, Kind, Role
from trainctl.controller.access.token import UnauthenticatedError
from trainctl.controller.access.token_book import TokenBook
from trainctl.protos.version import AUTH_HEADER

LOCAL = Caller(kind=Kind.LOCAL, name="local", grants=(Grant(ALL_TENANTS, Role.ADMIN),))
"""Whoever can read the token in the controller's folder."""
_SCHEME = "Bearer "


class Authenticate(Protocol):
    """Finds out who calls."""

    def __call__(self, metadata: Mapping[str, Any], context: Any) -> Caller:
        """Who calls.

        Args:
            metadata: what the call carries.
            context: of the call (``grpc.aio.ServicerContext``).

        Raises:
            UnauthenticatedError: nobody that is known here.
        """
        ...


class BearerToken:
    """Implements ``Authenticate`` by a token in the metadata.

    Args:
        own: the controller's own token.
        book: the tokens that people were given; None: there are none.
    """

    def __init__(self, own: str, book: TokenBook | None = None) -> None:
        self._own = own.encode()
        self._book = book

    def __call__(self, metadata: Mapping[str, Any], context: Any) -> Caller:
        """See ``Authenticate``."""
        given = metadata.get(AUTH_HEADER, "")
        text = given.decode("latin-1") if isinstance(given, bytes) else str(given)
        shown = text.removeprefix(_SCHEME)
        if not shown.strip():
            raise UnauthenticatedError(
                "the call carries no token: expected this controller's, or one that an admin made",
                hint="--token-file names the file with it; of a local controller it is the file `token` of its folder",
            )
        if hmac.compare_digest(shown.encode(), self._own):
            return LOCAL
        if self._book is None or not shown.startswith("tctl_"):
            raise UnauthenticatedError(
                "the call carries another token: expected this controller's, or one of the form tctl_ID_SECRET",
                hint="the controller's own is in the file `token` of its folder; --token-file names it",
            )
        return self._book.caller(shown)
