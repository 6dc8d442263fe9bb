"""A job trains over TLS while every certificate is renewed, again and again; no secret is seen anywhere.

Without it a job could end when a certificate does, or a secret be written somewhere.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from e2e.local_system import tiny_job, workers
from e2e.tls_system import TlsSystem, tls_system
from waiting import until

pytestmark = pytest.mark.e2e
STEPS = 100_000  # more than it ever does


def test_renewed_certificates_change_no_generation_and_no_worker(corpus: Path, tmp_path: Path) -> None:
    with tls_system(tmp_path, "--agent-cert-ttl", "4s", "--server-cert-ttl", "4s") as system:
        tokens = [system.token(name=f"join-{node}") for node in ("a", "b")]
        agents = [
            system.agent(node, "--slots", "1", "--join-token-file", str(token))
            for node, token in zip(("a", "b"), tokens, strict=True)
        ]
        system.submit(tiny_job("first", corpus, steps=STEPS, nodes=2, per_node=1))
        before = workers(system.wait_step("first", 1))
        renewed = [agent.log.count("renewed the certificate") for agent in agents]
        until(
            lambda: all(
                agent.log.count("renewed the certificate") >= had + 2
                for agent, had in zip(agents, renewed, strict=True)
            )
        )
        step = system.job("first").status.step
        job = system.wait_step("first", step + 2)  # it trains on after that
        assert (job.status.phase, job.status.restarts, job.status.recovery_count) == ("RUNNING", 0, 0)
        assert [island.generation for island in job.status.islands] == [1]
        assert {rank: worker.pid for rank, worker in before.items()} == {
            rank: worker.pid for rank, worker in workers(job).items()
        }
        shown = json.loads(system.cli("version", "-o", "json").stdout)["certificates"]
        assert set(shown) == {"controller", "authority"}
        system.cli("cancel", "first", "-y", "--grace", "1s")
        system.wait_phase("first", "CANCELLED")
        assert [event.type for event in system.events("first")].count("generation.committed") == 1
        steps = [figures.step for figures in system.figures("first")]
        assert steps == list(range(1, len(steps) + 1))
        assert len(steps) >= step
        assert_no_secret_is_seen(system, tokens)


def assert_no_secret_is_seen(system: TlsSystem, tokens: list[Path]) -> None:
    """Neither in command lines and environments, nor in logs, the store, or what commands show."""
    joins = [path.read_text().strip().rpartition(".")[2] for path in tokens]
    secrets = [*joins, (system.run_dir / "token").read_text().strip()]
    folder = system.run_dir.parent
    seen: dict[str, bytes] = {}
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            for name in ("cmdline", "environ"):
                try:
                    seen[str(process / name)] = (process / name).read_bytes()
                except OSError:
                    continue
    kept_apart = {*tokens, system.run_dir / "token"}
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept_apart and path.suffix != ".key":
            seen[str(path)] = path.read_bytes()
    for command in (("describe", "first"), ("get", "job", "first", "-o", "yaml"), ("nodes", "join-tokens"), ("audit",)):
        seen[" ".join(command)] = system.cli(*command).stdout.encode()
    assert any("store.sqlite3" in name for name in seen)
    for secret in secrets:
        assert [name for name, data in seen.items() if secret.encode() in data] == []
    keys = re.compile(rb"BEGIN (EC )?PRIVATE KEY")
    assert [name for name, data in seen.items() if keys.search(data)] == []
