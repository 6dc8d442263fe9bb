"""What doctor says of certificates.

Without it certificates would end on a day that nobody saw coming.
"""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from trainctl.cli.doctor.check_certificates import check_certificates
from trainctl.cli.doctor.facts import Controller, Facts, Node
from trainctl.cli.doctor.finding import Status

HOUR_S, DAY_S = 3600.0, 86400.0


def found(controller: Controller) -> list[tuple[Status, str]]:
    facts = Mock(spec=Facts, controller=controller)
    findings = list(check_certificates(facts))
    assert all(one.remedy for one in findings if one.status is not Status.OK)
    return [(one.status, one.message) for one in findings]


def test_without_tls_there_is_nothing_to_say() -> None:
    assert found(Controller()) == []


@pytest.mark.parametrize(
    ("left_s", "authority_s", "agents_s", "status", "words"),
    [
        (20 * HOUR_S, 3000 * DAY_S, 20 * HOUR_S, Status.OK, "the controller's is good for 20h00m, the authority"),
        (20 * HOUR_S, 3000 * DAY_S, 600.0, Status.WARN, "agents whose certificate expires soon: node-0 (10m00s)"),
        (600.0, 3000 * DAY_S, 600.0, Status.WARN, "the controller's certificate expires in 10m00s"),
        (20 * HOUR_S, 20 * DAY_S, 20 * HOUR_S, Status.WARN, "the authority expires in 20d"),
        (20 * HOUR_S, -1.0, 20 * HOUR_S, Status.FAIL, "the authority that this side trusts has expired"),
    ],
)  # fmt: skip
def test_what_runs_out_is_said_in_time(
    left_s: float, authority_s: float, agents_s: float, status: Status, words: str
) -> None:
    node = Node(name="node-0", state="READY", silent_s=0.1, version="1", certificate_left_s=agents_s)
    plain = Node(name="node-1", state="READY", silent_s=0.1, version="1")
    controller = Controller(certificate_left_s=left_s, authority_left_s=authority_s, nodes=(node, plain))
    ((level, message),) = found(controller)
    assert level is status
    assert words in message
