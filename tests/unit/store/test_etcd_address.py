"""The address of an etcd: what it says, and everything that is wrong with it at once.

Without it a typing error in an address would be a time-out.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.controller.store.etcd.address import parse_address
from trainctl.controller.store.opening import StoreAddress
from trainctl.core.errors import UsageError


def test_a_full_address() -> None:
    found = parse_address(
        "etcd://a:1,[::1]:2,b/team%20a/x/?ca=/c&cert=d&key=e&server-name=etcd&user=u&password-file=%2Ff"
    )
    assert found.members == ("a:1", "[::1]:2", "b:2379")
    assert found.prefix == "/team a/x"
    assert (found.ca, found.cert, found.key) == (Path("/c"), Path("d"), Path("e"))
    assert (found.server_name, found.user, found.password_file) == ("etcd", "u", Path("/f"))
    assert found.tls
    assert str(found) == "etcd://a:1,[::1]:2,b:2379/team a/x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://a", ["expected etcd://, found http"]),
        ("etcd://", ["expected HOST:PORT"]),
        ("etcd://a:0,a:99999,b:x", ["'a:0': expected a port", "'a:99999'", "'b:x'"]),
        ("etcd://a:1,a:1", ["a:1 occurs twice"]),
        ("etcd://me:pw@a", ["can be read by everybody"]),
        ("etcd://a?cs=x&cert=y", ["unknown option 'cs'", "cert without key", "need ca"]),
        ("etcd://a?ca=&user=u", ["'ca' is empty", "user without password-file"]),
        ("etcd://a?ca=1&ca=2", ["'ca' occurs twice"]),
    ],
)
def test_all_that_is_wrong_is_said(text: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as found:
        parse_address(text)
    for word in words:
        assert word in str(found.value)
    assert "pw" not in str(found.value).replace("password", "")


def test_what_is_shared_and_what_can_be_listened_to() -> None:
    assert not StoreAddress.parse("file:/x/y").shared
    assert StoreAddress.parse("etcd://10.0.0.1:1,127.0.0.1:2").unencrypted() == ["10.0.0.1:1"]
    assert StoreAddress.parse("etcd://10.0.0.1:1?ca=x").unencrypted() == []
