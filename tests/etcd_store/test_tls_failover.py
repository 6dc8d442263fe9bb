"""Two controllers with TLS beside one etcd: one authority for both, and agents that follow the leader.

Without it a fail-over could leave every agent refused by the new leader.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from e2e.tls_system import FAKES, Process, TlsSystem, controller_process
from etcd_store.controllers import TOKEN
from etcd_store.servers import EtcdCluster
from trainctl.controller.security.authority import open_authority
from waiting import until

TTL = "2s"


def start(folder: Path, etcd: EtcdCluster, authority: Path, stack: ExitStack) -> Process:
    """A controller of the installation, with a folder of its own."""
    folder.mkdir(parents=True)
    (folder / "token").write_text(TOKEN)
    store = etcd.address(prefix=f"/{folder.parent.name}")
    process = controller_process(folder, "--store", store, "--tls-ca", str(authority), "--lease-ttl", TTL)
    process.start()
    stack.callback(process.end)
    return process


@contextmanager
def installation(folder: Path, etcd: EtcdCluster) -> Iterator[tuple[list[TlsSystem], list[Process], ExitStack]]:
    """The leader first, then one that stands by."""
    open_authority(folder / "ca", time.time())
    with ExitStack() as stack:
        leader = start(folder / "a", etcd, folder / "ca", stack)
        leader.said("controller serves")
        standby = start(folder / "b", etcd, folder / "ca", stack)
        standby.said("controller stands by")
        systems = [TlsSystem(folder / name, stack=stack) for name in ("a", "b")]
        try:
            yield systems, [leader, standby], stack
        except BaseException as error:
            error.add_note("\n\n".join(f"{log}:\n{log.read_text()[-4000:]}" for log in folder.rglob("*.log")))
            raise


def people(system: TlsSystem, addresses: str, folder: Path) -> tuple[str, ...]:
    token, ca = system.run_dir / "token", folder / "ca" / "ca.crt"
    return ("--address", addresses, "--token-file", str(token), "--ca-file", str(ca))


def test_agents_and_people_follow_the_leader_over_tls(etcd: EtcdCluster, tmp_path: Path) -> None:
    with installation(tmp_path, etcd) as (systems, (leader, standby), _):
        first, second = systems
        addresses = f"{second.controller['address']},{first.controller['address']}"  # who stands by is asked first
        own = people(first, addresses, tmp_path)
        token = tmp_path / "join"
        first.cli("nodes", "join-token", "--out", str(token), *own)
        agent = first.agent("n", "--join-token-file", str(token), *FAKES, controllers=addresses)
        agent.said("registered as incarnation")
        until(lambda: "READY" in first.cli("nodes", "list", *own).stdout)
        assert leader.running is not None
        leader.running.send_signal(signal.SIGKILL)
        standby.said("controller serves")
        until(lambda: "READY" in first.cli("nodes", "list", *own, check=False).stdout, lambda: agent.log)
        assert agent.log.count("joined as n") == 1
        assert agent.log.count("registered as incarnation") == 1  # the same life goes on under the new leader


def test_a_controller_with_another_authority_or_none_does_not_lead(etcd: EtcdCluster, tmp_path: Path) -> None:
    with installation(tmp_path, etcd) as (_, (leader, standby), stack):
        open_authority(tmp_path / "other", time.time())
        foreign = start(tmp_path / "c", etcd, tmp_path / "other", stack)  # told at once, not when it is needed
        assert foreign.exit_code() == 4
        assert "the nodes of this installation trust the certificate authority with SHA-256" in foreign.log
        assert "this controller has another one" in foreign.log
        assert "(AUTHORITY_FOREIGN)" in foreign.log
        store = etcd.address(prefix=f"/{tmp_path.name}")
        plain = controller_process(tmp_path / "c", "--store", store, "--lease-ttl", TTL)
        plain.start()
        stack.callback(plain.end)
        assert plain.exit_code() == 4
        assert "this one has no TLS" in plain.log
        for one in (leader, standby):
            one.end()
        accepted = controller_process(tmp_path / "c", "--store", store, "--lease-ttl", TTL, "--accept-store")
        accepted.start()
        stack.callback(accepted.end)
        accepted.said("controller serves")
