"""From ``--store`` to a store: ``file:PATH`` for one machine, ``etcd://...`` for several controllers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from trainctl.controller.store.etcd.address import SCHEME, EtcdAddress, parse_address
from trainctl.controller.store.port import StateStore
from trainctl.controller.store.sqlite import SqliteStore
from trainctl.core.errors import UsageError
from trainctl.core.loopback import beyond_loopback
from trainctl.core.texts import quoted

OnRequest = Callable[[str, float], None]
_FILE = "file"


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """Where the state is kept: a file or an etcd."""

    where: Path | EtcdAddress

    @classmethod
    def parse(cls, text: str) -> StoreAddress:
        """Reads what ``--store`` says.

        Raises:
            UsageError: it is neither ``file:PATH`` nor a right ``etcd://...``.
        """
        scheme, colon, rest = text.partition(":")
        if scheme == SCHEME:
            return cls(parse_address(text))
        if not colon or scheme != _FILE or not rest.strip("/"):
            raise UsageError(
                f"--store: expected file:PATH or {SCHEME}://HOST:PORT, found {quoted(text)}",
                hint="for example file:/var/lib/trainctl/store.sqlite3",
            )
        return cls(Path(rest.removeprefix("//")).absolute())

    @property
    def shared(self) -> bool:
        """Whether several controllers may have it open."""
        return isinstance(self.where, EtcdAddress)

    def unencrypted(self) -> list[str]:
        """Members on other machines that everybody in between can listen to."""
        where = self.where
        return beyond_loopback(where.members) if isinstance(where, EtcdAddress) and not where.tls else []

    def __str__(self) -> str:
        return str(self.where) if isinstance(self.where, EtcdAddress) else f"{_FILE}:{self.where}"

    async def open(self, *, on_request: OnRequest | None = None) -> StateStore:
        """Opens the store.

        Raises:
            TrainctlError: it cannot be had; as ``SqliteStore.open`` and ``EtcdStore.open``.
        """
        if isinstance(self.where, Path):
            return await SqliteStore.open(self.where, on_request=on_request)
        from trainctl.controller.store.etcd.store import EtcdStore  # who has a file needs none of it

        return await EtcdStore.open(self.where, on_request=on_request)
