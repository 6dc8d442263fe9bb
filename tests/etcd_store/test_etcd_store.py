"""The store in etcd: the contract, over each way of being let in, and what only etcd can do wrong.

Without it the store in etcd could keep less than the one in a file, on which most tests run.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType

import pytest

from contracts.state_store import StateStoreContract, collect
from etcd_store.certificates import Authority
from etcd_store.running import opened, run
from etcd_store.servers import EtcdCluster
from trainctl.controller.store.etcd.flaws import flaw_of
from trainctl.controller.store.etcd.store import PAGE_KEYS
from trainctl.controller.store.port import (
    MAX_OPERATIONS,
    Put,
    StateStore,
    StoreUnavailableError,
)
from trainctl.core.errors import PermissionDeniedError, UsageError

_prefixes = itertools.count(1)


def fresh_prefix() -> str:
    return f"/t{next(_prefixes)}"


class EtcdContract(StateStoreContract):
    """Subclass it with ``address``, the options included."""

    lease_ttl_s = 1.0
    cluster: EtcdCluster
    options: Mapping[str, str] = MappingProxyType({})

    @asynccontextmanager
    async def open_store(self, folder: Path) -> AsyncIterator[StateStore]:
        address = self.cluster.address(prefix=f"/{folder.name}", **self.options)
        async with opened(address) as store:
            yield store


class TestPlain(EtcdContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, etcd: EtcdCluster) -> None:
        self.cluster = etcd


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    folder = tmp_path_factory.mktemp("three")
    with EtcdCluster(folder, 3, Authority(folder / "ca"), client_certificates=True) as cluster:
        yield cluster


class TestThreeMembersWithTls(EtcdContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, three: EtcdCluster) -> None:
        self.cluster = three
        self.options = certified(three, "controller")


def certified(cluster: EtcdCluster, common_name: str) -> dict[str, str]:
    """Options of a client with a certificate of this name."""
    assert cluster.authority is not None
    own = cluster.authority.issue(common_name, cluster.folder)
    return {"ca": str(cluster.authority.certificate), "cert": str(own.certificate), "key": str(own.key)}


@pytest.fixture(scope="module")
def with_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdCluster]:
    """TLS, client certificates, and two users: ``controller`` may do everything under /ours, ``root`` everything."""
    folder = tmp_path_factory.mktemp("users")
    with EtcdCluster(folder, 1, Authority(folder / "ca"), client_certificates=True) as cluster:
        (folder / "password").write_text("secret\n")
        (folder / "wrong").write_text("guess\n")
        for command in (
            "user add root:rootpw",
            "user grant-role root root",
            "user add controller:secret",
            "role add ours",
            "role grant-permission ours readwrite /ours --prefix",
            "user grant-role controller ours",
            "auth enable",
        ):
            cluster.ctl(*command.split())
        yield cluster


class TestPassword(EtcdContract):
    @pytest.fixture(autouse=True)
    def _cluster(self, with_users: EtcdCluster) -> None:
        self.cluster = with_users
        password = with_users.folder / "password"
        self.options = {**certified(with_users, "stranger"), "user": "controller", "password_file": str(password)}

    @asynccontextmanager
    async def open_store(self, folder: Path) -> AsyncIterator[StateStore]:
        async with opened(self.cluster.address(prefix=f"/ours/{folder.name}", **self.options)) as store:
            yield store


def test_a_long_list_is_one_snapshot(etcd: EtcdCluster) -> None:
    async def body() -> None:
        async with opened(etcd.address(prefix=fresh_prefix())) as store:
            count = 2 * PAGE_KEYS + 7
            names = [f"k/{index:05}" for index in range(count)]
            for first in range(0, count, MAX_OPERATIONS):
                group = names[first : first + MAX_OPERATIONS]
                last = await store.txn((), [Put(name, name.encode()) for name in group])
            found = await store.range("k/")
            assert [item.key for item in found.items] == names
            assert (found.revision, found.more) == (last.revision, False)
            some = await store.range("k/", limit=PAGE_KEYS + 1, start_after=names[4])
            assert [item.key for item in some.items] == names[5 : PAGE_KEYS + 6]
            assert some.more

    run(body)


def test_two_stores_under_two_prefixes_do_not_see_each_other(etcd: EtcdCluster) -> None:
    async def body() -> None:
        one, two = fresh_prefix(), fresh_prefix()
        async with opened(etcd.address(prefix=one)) as a, opened(etcd.address(prefix=two)) as b:
            await a.txn((), (Put("/x", b"1"),))
            assert await b.get("/x") is None
            assert (await b.range("")).items == ()

    run(body)


@pytest.mark.parametrize("missing", ["ca", "cert", "expired", "nobody"])
def test_who_is_not_let_in_is_told_why(tmp_path: Path, missing: str) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other", name="other authority")
    own = authority.issue("controller", tmp_path)
    options = {"ca": str(authority.certificate), "cert": str(own.certificate), "key": str(own.key)}
    expected = {
        "ca": ("was not issued by the authority in", "look at ca and server-name"),
        "cert": ("expects the certificate of a client", "name cert and key"),
        "expired": ("refused this side's certificate: it expired at", "over.pem: is it still good"),
        "nobody": ("expects TLS, and this side spoke in clear", "name ca"),
    }
    if missing == "ca":
        options["ca"] = str(other.certificate)
    elif missing == "cert":
        del options["cert"], options["key"]
    elif missing == "expired":
        over = authority.issue("over", tmp_path, days=-1 / 1440)
        options |= {"cert": str(over.certificate), "key": str(over.key)}
    else:
        options = {}

    async def body(cluster: EtcdCluster) -> None:
        with pytest.raises(StoreUnavailableError, match=expected[missing][0]) as found:
            async with opened(cluster.address(**options)):
                pass
        assert expected[missing][1] in found.value.hint
        assert f":{cluster.members[0].client_port}" in str(found.value)

    with EtcdCluster(tmp_path / "etcd", 1, authority, client_certificates=True) as cluster:
        run(lambda: body(cluster))


def test_an_etcd_in_clear_is_not_taken_for_one_that_wants_certificates(etcd: EtcdCluster, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")

    async def body() -> None:
        with pytest.raises(StoreUnavailableError, match="found something that speaks in clear") as found:
            async with opened(etcd.address(ca=str(authority.certificate))):
                pass
        assert "leave ca, cert and key out of the store's address" in found.value.hint

    run(body)


def test_wrong_passwords_and_foreign_prefixes_are_refused(with_users: EtcdCluster) -> None:
    stranger = certified(with_users, "stranger")
    password, wrong = str(with_users.folder / "password"), str(with_users.folder / "wrong")

    async def refused(text: str, **address: str) -> PermissionDeniedError:
        with pytest.raises(PermissionDeniedError, match=text) as found:
            async with opened(with_users.address(**address)):
                pass
        return found.value

    async def body() -> None:
        await refused("authentication failed", prefix="/ours", user="controller", password_file=wrong, **stranger)
        options = {"user": "controller", "password_file": password, **stranger}
        error = await refused("user controller may not do this", prefix="/theirs", **options)
        assert "read and write access to the prefix /theirs" in error.hint
        error = await refused("user that the certificate names", prefix="/ours", **stranger)
        assert "the certificate names" in error.hint

    run(body)


def test_a_certificates_name_is_its_user(with_users: EtcdCluster) -> None:
    async def body() -> None:
        address = with_users.address(prefix="/ours/certificate", **certified(with_users, "controller"))
        async with opened(address) as store:
            await store.txn((), (Put("/x", b"1"),))
        with pytest.raises(PermissionDeniedError):
            async with opened(with_users.address(prefix="/theirs", **certified(with_users, "controller"))):
                pass

    run(body)


def test_a_token_that_is_no_longer_valid_is_replaced(with_users: EtcdCluster) -> None:
    """Members forget their tokens when they are restarted."""
    options = {**certified(with_users, "stranger"), "user": "controller"}
    address = with_users.address(prefix="/ours/token", password_file=str(with_users.folder / "password"), **options)

    async def body() -> None:
        async with opened(address) as store:
            following = asyncio.create_task(collect(store, "/x", (await store.range("/")).revision + 1, 2))
            await store.txn((), (Put("/x", b"1"),))
            with_users.stop()
            with_users.start()
            await asyncio.to_thread(with_users.wait_ready)
            await store.txn((), (Put("/x", b"2"),))
            batches = await following
            assert [e.current.value for b in batches for e in b.events if e.current] == [b"1", b"2"]

    run(body)


def test_a_user_where_there_are_none_is_an_error(etcd: EtcdCluster, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("x")

    async def body() -> None:
        with pytest.raises(UsageError, match="no authentication"):
            async with opened(etcd.address(user="me", password_file=str(tmp_path / "password"))):
                pass

    run(body)


def test_an_etcd_that_loses_data_when_it_is_killed_is_named(
    etcd: EtcdCluster, caplog: pytest.LogCaptureFixture
) -> None:
    """Ours for the tests is one (3.5.1); Debian's (3.4) is not."""
    version = etcd.ctl("endpoint", "status", "-w=fields").split('"Version" : "')[1].split('"')[0]

    async def body() -> None:
        async with opened(etcd.address(prefix=fresh_prefix())) as store:
            flaw = (await store.condition()).flaw
            assert flaw == flaw_of(version)
            assert flaw in caplog.text
            assert bool(flaw) == ("can lose confirmed changes" in caplog.text)

    run(body)
    assert version
