"""An S3 store for tests: moto's server behind a ``FaultyProxy``, and the environment that leads to it."""

from __future__ import annotations

import http.client
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import fsspec  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from object_store.proxy import FaultyProxy
from trainctl.checkpoint.storage.calls import Calls
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.patience import Patience
from trainctl.checkpoint.storage.port import Storage
from trainctl.core.clock import ManualClock

QUICK = Patience(deadline_s=20.0, answer_s=3.0, slowest_bytes_per_s=64 << 20)
"""Tests of silence wait for ``answer_s``; on a machine that is busy, an answer that comes takes a second."""


@dataclass
class Store:
    """A bucket of its own, and what is between it and us.

    Attributes:
        proxy: through which ``open`` goes.
        bucket: its name.
        waited_s: how long was waited between tries, in all; no test really does.
    """

    proxy: FaultyProxy
    bucket: str
    waited_s: float = 0.0

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/runs/first"

    def calls(self, patience: Patience = QUICK) -> Calls:
        clock = ManualClock()

        def sleep(seconds: float) -> None:
            self.waited_s += seconds
            clock.advance(seconds)

        return Calls(patience, clock=clock, sleep=sleep)

    def open(self, path: str = "", patience: Patience = QUICK) -> Storage:
        return open_storage(f"{self.uri}/{path}".rstrip("/"), calls=self.calls(patience))

    def objects(self) -> list[str]:
        """All objects there, asked for while nothing goes wrong."""
        self.proxy.calm()
        filesystem = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        return sorted(name.removeprefix(f"{self.bucket}/") for name in filesystem.find(self.bucket))

    def uploads(self) -> int:
        """Multi-part uploads that were begun and neither completed nor taken back."""
        self.proxy.calm()
        filesystem = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
        return len(filesystem.call_s3("list_multipart_uploads", Bucket=self.bucket).get("Uploads", []))


@contextmanager
def emulator() -> Iterator[tuple[str, int]]:
    """Where moto's server listens."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield host, port
    finally:
        server.stop()


@contextmanager
def bucket(upstream: tuple[str, int], patched: pytest.MonkeyPatch) -> Iterator[Store]:
    """A new bucket, reached through a proxy of its own."""
    proxy = FaultyProxy(upstream)
    for name, value in {
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patched.setenv(name, value)
    store = Store(proxy, f"b-{uuid.uuid4().hex[:12]}")
    _create(upstream, store.bucket)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    try:
        yield store
    finally:
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        proxy.close()


def _create(upstream: tuple[str, int], name: str) -> None:
    """By a request of our own: a client is a fifth of a second of a processor, for every test."""
    connection = http.client.HTTPConnection(*upstream, timeout=60)
    try:
        connection.request("PUT", f"/{name}", headers={"Content-Length": "0"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
    finally:
        connection.close()
