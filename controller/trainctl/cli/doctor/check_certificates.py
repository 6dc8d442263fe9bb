"""Checks of certificates: whether they are renewed in their time. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from trainctl.cli.doctor.facts import Facts
from trainctl.cli.doctor.finding import Finding, fail, ok, warn
from trainctl.core.units import format_duration

AUTHORITY_WARN_S = 30 * 86400.0
OWN_WARN_S = 3600.0
"""Whoever renews after two thirds of a day has eight hours left."""


def check_certificates(facts: Facts) -> Iterator[Finding]:
    """How long the certificates are still good; nothing to say without TLS."""
    controller = facts.controller
    left_s, authority_s = controller.certificate_left_s, controller.authority_left_s
    if left_s is None or authority_s is None:
        return
    late = [
        f"{node.name} ({format_duration(max(0.0, node.certificate_left_s))})"
        for node in controller.nodes
        if node.certificate_left_s is not None and node.certificate_left_s < OWN_WARN_S
    ]
    if authority_s <= 0:
        yield fail(
            "certificates",
            "the authority that this side trusts has expired",
            "name the new one with --ca-file; if there is none, replace the controllers' and let all nodes join anew",
        )
    elif authority_s < AUTHORITY_WARN_S:
        yield warn(
            "certificates",
            f"the authority expires in {format_duration(authority_s)}: then nobody can connect any more",
            "replace ca.crt and ca.key of the controllers, give people the new ca.crt, and let all nodes join anew",
        )
    elif left_s < OWN_WARN_S:
        yield warn(
            "certificates",
            f"the controller's certificate expires in {format_duration(max(0.0, left_s))}, and was not renewed yet",
            "its own is renewed by itself, unless --server-cert-ttl is that short; one of --tls-cert by who made it",
        )
    elif late:
        yield warn(
            "certificates",
            f"agents whose certificate expires soon: {', '.join(late)}",
            "look into agent.log on these machines: it says why renewing fails; else --agent-cert-ttl is that short",
        )
    else:
        yield ok(
            "certificates",
            f"the controller's is good for {format_duration(left_s)}, the authority for {format_duration(authority_s)}",
        )
