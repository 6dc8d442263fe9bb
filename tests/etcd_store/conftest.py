"""etcd clusters that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from etcd_store.servers import EtcdCluster


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """One member, neither TLS nor users."""
    with EtcdCluster(tmp_path_factory.mktemp("etcd")) as cluster:
        yield cluster
