"""Agents that join over TLS, renew, expire, and are refused; people and agents that come the wrong way.

Without it agents could fall away when certificates end, or talk to a stranger.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.tls_system import FAKES, Process, TlsSystem, controller_process, tls_system
from trainctl.controller.security.authority import open_authority
from trainctl.protos.tls_probe import probe
from waiting import until

pytestmark = pytest.mark.multiproc


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsSystem]:
    with tls_system(tmp_path_factory.mktemp("tls")) as found:
        yield found


def ready(system: TlsSystem, node: str) -> bool:
    return any(one.node == node and one.state == "READY" for one in system.nodes())


def assert_ends(process: Process, exit_code: int, *words: str) -> None:
    """It says why, once, and what to do."""
    assert process.exit_code() == exit_code, process.log
    errors = [line for line in process.log.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, process.log
    for word in words:
        assert word in errors[0]
    assert "\nhint: " in process.log
    assert "Traceback" not in process.log


def test_an_agent_joins_with_a_token_alone_and_starts_again_without_it(system: TlsSystem) -> None:
    token = system.token("--ttl", "5m", name="alone")
    agent = system.agent("alone", "--join-token-file", str(token), *FAKES)
    until(lambda: ready(system, "alone"), lambda: agent.log)
    assert system.node("alone").certificate_expires_s > 0
    assert "Certificate  until " in system.cli("nodes", "describe", "alone").stdout
    agent.end()
    token.unlink()
    again = system.agent("alone", *FAKES)
    again.said("registered as incarnation")
    assert again.log.count("joined as alone") == 1
    assert "used up" in system.cli("nodes", "join-tokens").stdout
    checks = json.loads(system.cli("doctor", "-o", "json", check=False).stdout)["checks"]
    (found,) = [one for one in checks if one["check"] == "certificates"]
    assert found["status"] == "ok"
    assert found["message"].startswith("the controller's is good for 23h")


def test_a_certificate_is_renewed_and_one_that_expired_takes_a_token_again(tmp_path: Path) -> None:
    with tls_system(tmp_path, "--agent-cert-ttl", "4s", "--server-cert-ttl", "4s") as system:
        token = system.token("--ttl", "6s", name="first")
        agent = system.agent("n", "--join-token-file", str(token), *FAKES)
        until(lambda: agent.log.count("renewed the certificate") >= 2, lambda: agent.log)
        life = system.node("n").agent_incarnation
        assert agent.running is not None
        os.kill(agent.running.pid, signal.SIGSTOP)
        stopped_s = system.call_time_s()
        until(lambda: system.node("n").state == "UNREACHABLE")
        # Whatever it holds: where it was stopped between two connections, the controller knows only the former one.
        until(lambda: system.call_time_s() > stopped_s + 5.0)
        assert system.node("n").certificate_expires_s < system.call_time_s()
        os.kill(agent.running.pid, signal.SIGCONT)
        agent.said("the join token ", " expired at ", "(`trainctl nodes join-token` makes a new one)")
        assert agent.running.poll() is None  # its workers train on meanwhile
        token.write_bytes(system.token("--node", "n", name="second").read_bytes())
        until(lambda: ready(system, "n"), lambda: agent.log)
        assert system.node("n").agent_incarnation == life
        assert agent.log.count("registered as incarnation") == 1
        certificates = system.cli("version").stdout.splitlines()[-1]
        assert certificates.startswith("certificates: the controller's has ")
        assert "the authority's 36" in certificates


def test_another_machine_does_not_become_a_node_that_is_there(system: TlsSystem) -> None:
    first = system.agent("taken", "--join-token-file", str(system.token(name="taken-1")), *FAKES)
    until(lambda: ready(system, "taken"), lambda: first.log)
    life = system.node("taken").agent_incarnation
    thief = system.agent("taken", "--join-token-file", str(system.token(name="taken-2")), *FAKES, folder="thief")
    assert_ends(thief, 5, "node taken holds a certificate until", "(JOIN_REFUSED)")
    assert system.node("taken").agent_incarnation == life
    named = system.token("--node", "taken", name="taken-3")
    heir = system.agent("taken", "--join-token-file", str(named), *FAKES, folder="heir")
    until(lambda: system.node("taken").agent_incarnation > life, lambda: heir.log)
    first.said("another machine has taken its place")


def test_whoever_comes_with_a_bad_token_is_told_why(system: TlsSystem) -> None:
    good = system.token("--node", "other", name="of-other").read_text().strip()
    head, _, secret = good.rpartition(".")
    foreign = open_authority(system.run_dir.parent / "foreign", time.time())
    cases = {
        f"{head}.{secret[::-1]}": (5, "the join token is not known here", "(JOIN_REFUSED)"),
        good: (5, "is for node other, this machine wants to be n", "(JOIN_REFUSED)"),
        "tctl-join:garbage": (2, "--join-token-file", "expected tctl-join:AUTHORITY:ID.SECRET"),
        "": (2, "--join-token-file", "found 0 characters"),
    }
    for number, (text, (code, *words)) in enumerate(cases.items()):
        path = system.run_dir.parent / f"bad-{number}"
        path.write_text(text)
        agent = system.agent("n", "--join-token-file", str(path), *FAKES, folder=f"bad-{number}")
        assert_ends(agent, code, *words)
        assert secret not in agent.log
    revoked = system.token(name="revoked")
    id_ = revoked.read_text().split(":")[2].split(".")[0]
    assert "is revoked" in system.cli("nodes", "revoke-join-token", id_).stdout
    assert_ends(system.agent("n", "--join-token-file", str(revoked), *FAKES, folder="revoked"), 5, "was revoked")
    missing = system.agent("n", "--join-token-file", "/nonexistent", *FAKES, folder="missing")
    assert_ends(missing, 6, "/nonexistent does not exist", "(JOIN_TOKEN_NEEDED)")
    wrong_ca = system.agent(
        "n", "--join-token-file", str(revoked), "--ca-file", str(system.run_dir.parent / "foreign" / "ca.crt"), *FAKES,
        folder="wrong-ca",
    )  # fmt: skip
    assert_ends(wrong_ca, 7, "was not issued by --ca-file", "(TLS_FAILED)")
    assert foreign.pem


def test_agents_and_controllers_that_do_not_agree_on_tls(system: TlsSystem, tmp_path: Path) -> None:
    plain = system.agent("n", "--token-file", str(system.run_dir / "token"), *FAKES, folder="plain")
    assert_ends(plain, 7, "expects TLS, and this side spoke in clear", "(TLS_FAILED)")
    controller = controller_process(tmp_path / "plain")
    controller.start()
    try:
        controller.said("controller serves")
        open_system = TlsSystem(tmp_path / "plain", stack=system.stack)
        address = open_system.controller["address"]
        token = str(system.token(name="for-plain"))
        agent = system.agent("n", "--join-token-file", token, *FAKES, controllers=address, folder="to-plain")
        assert_ends(agent, 7, f"expected TLS at {address}, found something that speaks in clear")
        own = ("--address", address, "--token-file", str(tmp_path / "plain" / "token"))
        refused = system.cli("nodes", "join-token", *own, check=False)
        assert refused.returncode == 6
        assert "this controller has no TLS" in refused.stderr
        ca = str(system.run_dir / "tls" / "ca.crt")
        encrypted = system.cli("get", "jobs", *own, "--ca-file", ca, check=False)
        assert encrypted.returncode == 7
        assert f"expected TLS at {address}" in encrypted.stderr
    finally:
        controller.end()


def test_people_who_come_the_wrong_way_are_told_why(system: TlsSystem, tmp_path: Path) -> None:
    address, token = system.controller["address"], str(system.run_dir / "token")
    ca = str(system.run_dir / "tls" / "ca.crt")
    open_authority(tmp_path / "other", time.time())

    def asked(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        there = TlsSystem(tmp_path / "nobody" / "local", env=env or {})
        return there.cli("get", "jobs", "--address", address, "--token-file", token, *arguments, check=False)

    assert asked("--ca-file", ca).returncode == 0
    assert asked(env={"TRAINCTL_CA_FILE": ca}).returncode == 0
    for arguments, code, words in (
        ((), 7, f"{address} expects TLS, and this side spoke in clear"),
        (("--ca-file", str(tmp_path / "other" / "ca.crt")), 7, "was not issued by the authority in"),
        (("--ca-file", token), 2, "--ca-file: expected certificates in PEM form"),
        (("--ca-file", "/nonexistent"), 5, "cannot read /nonexistent"),
    ):
        done = asked(*arguments)
        assert done.returncode == code, done.stderr
        assert words in done.stderr
        assert done.stderr.count("error: ") == 1
        assert "hint: " in done.stderr
    agents_port = system.agents_port()
    done = asked("--ca-file", ca, "--address", f"127.0.0.1:{agents_port}")
    assert done.returncode == 7
    assert "expects the certificate of a client, and this side has none" in done.stderr
    log = (system.run_dir.parent / "local.log").read_text()
    assert [line for line in log.splitlines() if not line.startswith("{")] == []  # gRPC writes nothing of its own


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--tls-name", "x"), 2, "--tls-name: expected with --tls only"),
        (("--tls", "--tls-cert", "/x"), 2, "--tls-cert and --tls-key: expected both or none"),
        (("--tls", "--agents-listen", "nowhere"), 2, "--agents-listen: expected HOST:PORT"),
        (("--tls", "--agent-cert-ttl", "1ms"), 2, "--agent-cert-ttl: expected at least 1s"),
        (("--tls-ca", "/nonexistent"), 6, "/nonexistent/ca.crt does not exist"),
        (("--tls", "--tls-cert", "/nonexistent/a", "--tls-key", "/nonexistent/b"), 5, "/nonexistent/a cannot be read"),
    ],
)
def test_a_controller_that_cannot_encrypt_as_told_does_not_start(
    tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    process = controller_process(tmp_path / "local", *arguments)
    process.start()
    assert_ends(process, code, words)


def test_insecure_is_said_at_each_start(tmp_path: Path) -> None:
    process = controller_process(tmp_path / "local", "--listen", "0.0.0.0:0", "--insecure")
    for life in (1, 2):
        process.start()
        until(lambda life=life: process.log.count("controller serves") == life)  # type: ignore[misc]
        process.end()
    assert process.log.count("--insecure: whoever is in the network of 0.0.0.0 can read") == 2
    process.log_file.unlink()
    encrypted = controller_process(tmp_path / "tls", "--listen", "0.0.0.0:0", "--tls")
    encrypted.start()
    try:
        encrypted.said("controller serves")
        assert "--insecure" not in encrypted.log
        metrics = TlsSystem(tmp_path / "tls").controller["metrics_address"]
        assert metrics.startswith("127.0.0.1:")  # what is not encrypted stays on this machine
    finally:
        encrypted.end()


def test_a_certificate_from_elsewhere_is_shown_to_people_and_taken_up_when_it_changes(tmp_path: Path) -> None:
    elsewhere = open_authority(tmp_path / "elsewhere", time.time())
    crt, key, ca = tmp_path / "a.crt", tmp_path / "a.key", tmp_path / "elsewhere" / "ca.crt"

    def renew(life_s: float) -> float:
        pair = elsewhere.for_server(["127.0.0.1"], time.time(), life_s)
        crt.write_bytes(pair.chain)
        key.write_bytes(pair.key)
        return pair.ends_s

    renew(2000)
    with tls_system(tmp_path, "--tls-cert", str(crt), "--tls-key", str(key), people_ca=ca) as system:
        agent = system.agent("n", "--join-token-file", str(system.token()), "--ca-file", str(ca), *FAKES)
        until(lambda: ready(system, "n"), lambda: agent.log)
        without = system.agent("m", "--join-token-file", str(system.token(name="m")), *FAKES)
        assert_ends(without, 7, "was not issued by the authority that the join token names", "(TLS_FAILED)")
        ends_s = renew(4000)
        seen = probe(system.controller["address"], ca=ca.read_bytes())
        assert seen.shown is not None
        assert seen.shown.ends_s == ends_s
