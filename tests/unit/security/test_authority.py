"""Without it a stranger could be trusted as an agent or a server, or be so for longer than the authority lives."""

from __future__ import annotations

import contextlib
import random
import stat
from base64 import b64encode
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from trainctl.controller.security.authority import (
    LIFE_S,
    Authority,
    AuthorityError,
    open_authority,
    read_authority,
)
from trainctl.controller.security.csr import MAX_BYTES, BadRequestError, read_request
from trainctl.controller.security.peer import agent_uri, key_digest, peer_of
from trainctl.core.errors import PermissionDeniedError
from unit.security.certificates import DER, at, key_pem, new_key, request_of

NOW_S = at("2026-01-31T12:00:00")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return open_authority(tmp_path / "tls", NOW_S)


def test_it_is_made_once_and_its_key_is_its_owners_alone(tmp_path: Path, authority: Authority) -> None:
    again = open_authority(tmp_path / "tls", NOW_S + 1000)
    assert again.fingerprint == authority.fingerprint == read_authority(tmp_path / "tls", NOW_S).fingerprint
    assert stat.S_IMODE((tmp_path / "tls" / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700
    assert authority.ends_s == pytest.approx(NOW_S + LIFE_S, abs=2)
    assert open_authority(tmp_path / "other", NOW_S).fingerprint != authority.fingerprint


def test_what_is_in_the_folder_and_cannot_be_used_is_one_error_each(tmp_path: Path, authority: Authority) -> None:
    folder = tmp_path / "tls"
    other = open_authority(tmp_path / "other", NOW_S)
    with pytest.raises(AuthorityError, match=r"ca.crt does not exist: expected ca.crt and ca.key"):
        read_authority(tmp_path / "nothing", NOW_S)
    with pytest.raises(AuthorityError, match=r"good from .* to 2036-.*; it is now 2099-"):
        read_authority(folder, at("2099-01-01"))
    with pytest.raises(AuthorityError, match=r"good from 2026-01-31 11:55:00 UTC to .*; it is now 2020-"):
        read_authority(folder, at("2020-01-01"))
    (folder / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(AuthorityError, match=r"ca.key is not the key of ca.crt"):
        read_authority(folder, NOW_S)
    (folder / "ca.key").write_text("garbage")
    with pytest.raises(AuthorityError, match=r"ca.key: expected a private key in PEM form"):
        read_authority(folder, NOW_S)
    (folder / "ca.key").unlink()
    with pytest.raises(AuthorityError, match=r"ca.key does not exist"):
        open_authority(folder, NOW_S)  # half of a pair is never made anew: nodes may trust the other half
    leaf = other.for_server(["localhost"], NOW_S, 1000)
    (folder / "ca.crt").write_bytes(leaf.chain)
    (folder / "ca.key").write_bytes(leaf.key)
    with pytest.raises(AuthorityError, match="may not sign"):
        read_authority(folder, NOW_S)
    (folder / "ca.crt").write_text("garbage")
    with pytest.raises(AuthorityError, match=r"ca.crt: expected a certificate in PEM form"):
        read_authority(folder, NOW_S)
    (tmp_path / "file").write_text("")
    with pytest.raises(PermissionDeniedError, match="cannot be written"):
        open_authority(tmp_path / "file" / "tls", NOW_S)


def test_a_server_is_trusted_under_its_names_and_for_its_time_alone(authority: Authority) -> None:
    pair = authority.for_server(["ctl.example", "10.0.0.7", "ctl.example"], NOW_S, 3600)
    chain = x509.load_pem_x509_certificates(pair.chain)
    store = Store([authority.certificate])

    def verify(name: x509.GeneralName, now_s: float) -> None:
        builder = PolicyBuilder().store(store).time(chain[0].not_valid_before_utc.fromtimestamp(now_s))
        assert isinstance(name, x509.DNSName)
        builder.build_server_verifier(name).verify(chain[0], [])

    verify(x509.DNSName("ctl.example"), NOW_S)
    for name, now_s in (("other.example", NOW_S), ("ctl.example", NOW_S + 3601), ("ctl.example", NOW_S - 400)):
        with pytest.raises(VerificationError):
            verify(x509.DNSName(name), now_s)
    assert chain[1] == authority.certificate
    assert (pair.begins_s, pair.ends_s) == (NOW_S - 300, NOW_S + 3600)
    assert serialization.load_pem_private_key(pair.key, None).public_key() == chain[0].public_key()


@pytest.mark.parametrize("node", ["node-0", "gpu 17/ö", "a" * 200])
def test_an_agents_certificate_says_its_node_and_is_for_clients_only(authority: Authority, node: str) -> None:
    key = new_key()
    pem = authority.for_node(key.public_key(), node, agent_uri("inst", node), NOW_S, 60)
    own = x509.load_pem_x509_certificate(pem)
    assert not own.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = own.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    context = {"x509_pem_cert": [pem.split(b"-----END")[0] + b"-----END CERTIFICATE-----\n"]}
    peer = peer_of(context)
    assert peer is not None
    assert (peer.node, peer.key, peer.ends_s) == (node, key_digest(key.public_key()), NOW_S + 60)


def test_nothing_outlives_the_authority(authority: Authority) -> None:
    late_s = authority.ends_s - 10
    assert authority.for_server(["localhost"], late_s, 3600).ends_s == authority.ends_s


def test_who_is_no_agent_is_none(authority: Authority) -> None:
    server = authority.for_server(["localhost"], NOW_S, 60)
    foreign = authority.for_node(new_key().public_key(), "n", "spiffe://other/x/agent/n", NOW_S, 60)
    nested = authority.for_node(new_key().public_key(), "n", "spiffe://trainctl/x/agent/n/agent/m", NOW_S, 60)
    for pem in (server.chain, foreign, nested, b"garbage", authority.pem):
        assert peer_of({"x509_pem_cert": [pem]}) is None
    assert peer_of({}) is None


def test_only_the_key_is_taken_over_from_a_request() -> None:
    key = new_key()
    assert key_digest(read_request(request_of(key, "node-0"), "node-0")) == key_digest(key.public_key())
    assert key_digest(read_request(request_of(key), "node-0")) == key_digest(key.public_key())


EXTENSIONS = {
    "an authority": x509.BasicConstraints(ca=True, path_length=None),
    "another name": x509.SubjectAlternativeName([x509.UniformResourceIdentifier(agent_uri("i", "other"))]),
    "a server": x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
}


@pytest.mark.parametrize("extension", EXTENSIONS.values(), ids=EXTENSIONS.keys())
def test_a_request_may_not_wish_for_anything(extension: x509.ExtensionType) -> None:
    with pytest.raises(BadRequestError, match="expected a key and no wishes, found extensions: "):
        read_request(request_of(new_key(), "n", [extension]), "n")


def damaged(good: bytes, noise: random.Random) -> bytes:
    changed = bytearray(good)
    for _ in range(noise.randint(1, 8)):
        changed[noise.randrange(len(changed))] = noise.randrange(256)
    return bytes(changed[: noise.choice([len(changed), noise.randint(0, len(changed))])])


def test_a_damaged_certificate_is_nobody_or_one_error(authority: Authority, tmp_path: Path) -> None:
    """Whatever the library raises about it."""
    pem = authority.for_node(new_key().public_key(), "n", agent_uri("i", "n"), NOW_S, 60)
    noise = random.Random(7)
    files = [tmp_path / "tls" / name for name in ("ca.crt", "ca.key")]
    good = [file.read_bytes() for file in files]
    for _ in range(500):
        for whole in (pem, good[0]):
            der = x509.load_pem_x509_certificate(whole).public_bytes(DER)
            text = b64encode(damaged(der, noise))
            found = b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----\n"
            peer_of({"x509_pem_cert": [found]})
        files[0].write_bytes(found)
        with contextlib.suppress(AuthorityError):
            open_authority(tmp_path / "tls", NOW_S)
        files[0].write_bytes(good[0])


def test_bad_requests_are_one_error_each() -> None:
    key = new_key()
    good = request_of(key, "n")
    noise = random.Random(7)
    refused = 0
    for _ in range(2000):
        try:  # where the damage changes nothing that counts, such as the number of unused bits of the signature
            assert read_request(damaged(good, noise), "n") == key.public_key()
        except BadRequestError:
            refused += 1
    assert refused > 1900
    for wrong, words in (
        (b"", "expected PKCS #10"),
        (b"x" * (MAX_BYTES + 1), f"at most {MAX_BYTES} bytes, found {MAX_BYTES + 1}"),
        (request_of(new_key(), "other"), "CN=n, found 'other'"),
        (request_of(rsa.generate_private_key(65537, 1024), "n"), "expected a key of P-256"),
    ):
        with pytest.raises(BadRequestError, match=words):
            read_request(wrong, "n")
    assert key_pem(new_key()).startswith(b"-----BEGIN PRIVATE KEY")
