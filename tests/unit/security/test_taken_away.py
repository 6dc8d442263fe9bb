"""TLS that is taken away on purpose: the controller's own agents come along, nobody else's.

Without it going back from TLS could cut an installation off from its own agents.
"""

from __future__ import annotations

from pathlib import Path

from unit.controller.controller_harness import run, serving


def test_own_agents_do_not_insist_on_tls_where_the_controller_has_none(tmp_path: Path) -> None:
    for node in ("node-0", "gpu-17"):
        kept = tmp_path / "nodes" / node / "tls"
        kept.mkdir(parents=True)
        (kept / "agent.crt").write_text("a certificate")
        (kept.parent / "agent.log").write_text("a log")

    async def main() -> None:
        async with serving(tmp_path, agents=1, agent_command=lambda *_: ("true",)):
            assert not (tmp_path / "nodes" / "node-0" / "tls").exists()
            assert (tmp_path / "nodes" / "node-0" / "agent.log").exists()
            assert (tmp_path / "nodes" / "gpu-17" / "tls" / "agent.crt").exists()

    run(main)
