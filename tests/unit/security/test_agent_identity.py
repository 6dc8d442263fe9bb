"""Without it an agent's key could be read by others, or a certificate of another node be taken up."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from trainctl.agent.security.identity import Identity
from trainctl.agent.security.trust import Given, JoinTokenNeededError
from trainctl.controller.security.authority import Authority, open_authority
from trainctl.controller.security.csr import read_request
from trainctl.controller.security.peer import agent_uri
from trainctl.core.errors import PermissionDeniedError, PreconditionError, UsageError
from trainctl.core.join_token import JoinText
from unit.security.certificates import at, new_key

NOW_S = at("2026-01-31T12:00:00")


def sign(authority: Authority, identity: Identity, node: str, life_s: float = 90) -> bytes:
    key = read_request(identity.request(), node)
    return authority.for_node(key, node, agent_uri("i", node), NOW_S, life_s)


def test_key_and_certificate_stay_in_the_folder_for_their_owner_alone(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "ca", NOW_S)
    identity = Identity(tmp_path / "tls", "n", lambda: NOW_S)
    assert identity.certificate is None
    assert identity.request() != b""
    kept = identity.keep(sign(authority, identity, "n"), authority.pem)
    assert NOW_S + 50 < kept.due_s <= NOW_S + 60
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "tls").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    again = Identity(tmp_path / "tls", "n", lambda: NOW_S + 89)
    found = again.valid()
    assert found is not None
    assert (found.pem, found.authority, found.ends_s) == (kept.pem, kept.authority, kept.ends_s)
    first, second = (x509.load_der_x509_csr(one.request()).public_key() for one in (identity, again))
    assert first == second
    assert Identity(tmp_path / "tls", "n", lambda: NOW_S + 90).valid() is None


def test_a_certificate_of_another_node_or_key_is_not_taken_up(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "ca", NOW_S)
    identity = Identity(tmp_path / "tls", "n", lambda: NOW_S)
    identity.request()
    stranger = authority.for_node(new_key().public_key(), "n", agent_uri("i", "n"), NOW_S, 90)
    other = authority.for_node(read_request(identity.request(), "n"), "m", agent_uri("i", "m"), NOW_S, 90)
    for wrong in (stranger, other, b"garbage", b""):
        with pytest.raises(PreconditionError, match="no certificate of this node's key"):
            identity.keep(wrong, authority.pem)
    identity.keep(sign(authority, identity, "n"), authority.pem)
    assert Identity(tmp_path / "tls", "m", lambda: NOW_S).certificate is None  # --node was changed
    (tmp_path / "tls" / "agent.crt").write_text("garbage")
    assert Identity(tmp_path / "tls", "n", lambda: NOW_S).certificate is None
    (tmp_path / "tls" / "agent.key").write_text("garbage")
    with pytest.raises(PreconditionError, match=r"agent.key: expected this agent's private key"):
        identity.request()


def test_what_an_agent_was_given(tmp_path: Path) -> None:
    authority = open_authority(tmp_path / "ca", NOW_S)
    token, ca = tmp_path / "join", tmp_path / "x.pem"
    text = JoinText(authority.der, "ab." + "s" * 32)
    given = Given(ca_file=None, join_token_file=token)
    with pytest.raises(JoinTokenNeededError, match=r"why: a join token is needed, and the file .*join does not exist"):
        given.join_text("why")
    with pytest.raises(JoinTokenNeededError, match="no --join-token-file was given"):
        Given(ca_file=None, join_token_file=None).join_text("why")
    for wrong in (b"", b"\xff\xfe", b"tctl_a_b", b"x" * 10**6):
        token.write_bytes(wrong)
        with pytest.raises(UsageError, match=r"--join-token-file .*join: expected tctl-join:"):
            given.join_text("why")
    token.write_text(f"{text}\n")
    assert given.join_text("why") == text
    assert given.authority(None) == authority.pem
    assert given.authority(b"kept") == b"kept"
    with pytest.raises(PermissionDeniedError, match=r"--ca-file .*x.pem cannot be read"):
        Given(ca_file=ca, join_token_file=None).authority(b"kept")
    ca.write_bytes(b"given")
    assert Given(ca_file=ca, join_token_file=token).authority(b"kept") == b"given"
