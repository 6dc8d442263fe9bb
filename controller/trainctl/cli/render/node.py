"""One node, and what is on it."""

from __future__ import annotations

from trainctl.cli.terminal.style import Style, table
from trainctl.core.units import format_time
from trainctl.protos.v1.job_pb2 import NodeStatus


def work_state(node: NodeStatus) -> str:
    """Whether it takes work: what an operator said, or nothing."""
    return "DRAINING" if node.draining else "CORDONED" if node.cordoned else ""


def describe(node: NodeStatus, *, style: Style) -> list[str]:
    """Everything there is to know about a node."""
    work = {"DRAINING": "none, its workers are moved away", "CORDONED": "no new work"}.get(
        work_state(node), "as it fits"
    )
    pairs = [
        ("Name", style.paint(node.node, "bold")),
        ("State", style.state(node.state)),
        ("Takes work", work),
        ("Slots", f"{node.slots_used} of {node.slots} taken"),
        ("Device", node.device or "cpu"),
        ("Fails with", f"failure domain {node.failure_domain}" if node.failure_domain else "no other node"),
        ("Agent", f"incarnation {node.agent_incarnation}, process {node.pid}, version {node.version or 'unknown'}"),
        ("Heard", f"{node.last_heard_age_s:.1f} s ago"),
        ("Address", node.address or "-"),
        ("Metrics", node.metrics_address or "-"),
    ]
    if node.certificate_expires_s:
        pairs.append(("Certificate", f"until {format_time(node.certificate_expires_s)}"))
    width = max(len(name) for name, _ in pairs)
    lines = [f"{name:<{width}}  {value}" for name, value in pairs]
    rows = [(job.name, ",".join(map(str, job.slots)), job.waiting or "-") for job in node.jobs]
    if not rows:
        return lines
    return [*lines, "", style.paint("Jobs:", "bold"), *(f"  {line}" for line in _jobs(rows))]


def _jobs(rows: list[tuple[str, str, str]]) -> list[str]:
    return table(("NAME", "WORKERS", "WAITS FOR"), rows)
