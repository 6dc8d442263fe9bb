"""An etcd that is full, frozen or without a majority: the doctor says so within seconds, and whoever asks is told why
nobody leads.

Without it an operator with a full disk under etcd would see time-outs and no reason.
"""

from __future__ import annotations

import io
import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from etcd_store.controllers import TTL_S, ControllerProcess, answers, two_controllers
from etcd_store.filling import fill
from etcd_store.running import opened, run
from etcd_store.servers import EtcdCluster
from trainctl.cli.doctor import gather_processes
from trainctl.cli.doctor.facts import Torch
from trainctl.cli.main import main as command
from trainctl.controller.store.port import StoreFullError
from waiting import until

SECONDS = 10.0
"""Within so many the doctor has said what it found, on a machine that is busy with other things."""
LONG_TTL = "60s"
"""So that the leader leads on, whatever the store does."""


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather_processes, "torch", lambda env: Torch())


def cli(of: ControllerProcess, *arguments: str) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    env = {"TRAINCTL_HOME": str(of.folder / "home"), "TRAINCTL_CONFIG": "", "TRAINCTL_ADDRESS": of.address}
    where = ("--token-file", str(of.folder / "token"), "--timeout", "5s")
    code = command((*arguments, *where), out=out, err=err, env=env)
    return code, out.getvalue(), err.getvalue()


def doctor(of: ControllerProcess) -> dict[str, dict[str, Any]]:
    began_s = time.monotonic()
    _, out, _ = cli(of, "doctor", "-o", "json")
    assert time.monotonic() - began_s < SECONDS
    return {check["check"]: check for check in json.loads(out)["checks"]}


def the_leader(of: list[ControllerProcess]) -> ControllerProcess:
    until(lambda: any(answers(one.address) for one in of), "nobody leads")
    return next(one for one in of if answers(one.address))


def make_full(etcd: EtcdCluster) -> None:
    async def body() -> None:
        async with opened(etcd.address(prefix="/other")) as store:
            with pytest.raises(StoreFullError):
                await fill(store)

    run(body)


def test_a_full_etcd_is_what_the_doctor_finds_and_what_keeps_everybody_from_leading(tmp_path: Path) -> None:
    flags = [f"--quota-backend-bytes={16 << 20}"]
    with EtcdCluster(tmp_path / "etcd", flags=flags) as etcd, two_controllers(etcd, tmp_path) as both:
        leader = the_leader(both)
        (heir,) = (one for one in both if one is not leader)
        well = doctor(leader)["store"]
        assert well["status"] != "fail"  # slow, maybe
        where = f"etcd://127.0.0.1:{etcd.members[0].client_port}/{tmp_path.name}"
        assert well["message"].startswith(f"{where} takes writes")

        make_full(etcd)
        full = doctor(leader)
        assert full["store"]["status"] == "fail"
        assert "the store is full; it says NOSPACE; it occupies" in full["store"]["message"]
        assert "the last change was confirmed" in full["store"]["message"]
        assert "disarm its NOSPACE alarm" in full["store"]["remedy"]
        assert full["controller"]["status"] != "fail"  # it leads on, and answers

        leader.kill()
        until(lambda: "nobody leads yet: it tried" in cli(heir, "get", "jobs")[2], "why nobody leads is told")
        code, _, said = cli(heir, "get", "jobs")
        assert code == 7
        assert "lease_grant: the store is full (NOT_LEADER)" in said
        assert "disarm its NOSPACE alarm" in said
        found = doctor(heir)
        assert "the store is full" in found["controller"]["message"]
        assert found["store"]["status"] == "fail"
        assert "(STORE_FULL)" in found["store"]["message"]


@pytest.mark.parametrize("size", [1, 3], ids=["frozen", "without a majority"])
def test_a_silent_etcd_fails_in_the_doctor_while_the_controller_answers(tmp_path: Path, size: int) -> None:
    with EtcdCluster(tmp_path / "etcd", size) as etcd:
        one = ControllerProcess(tmp_path / "one", etcd.address(prefix="/one"), flags=("--lease-ttl", LONG_TTL))
        one.start()
        try:
            until(lambda: bool(one.address) and answers(one.address), "it does not lead")
            assert doctor(one)["store"]["status"] != "fail"
            for member in etcd.members[size // 2 :]:
                member.signal(signal.SIGSTOP)
            found = doctor(one)
            assert found["controller"]["status"] != "fail"
            assert found["store"]["status"] == "fail"
            assert "takes no writes" in found["store"]["message"]
            assert "the last change was confirmed" in found["store"]["message"]
            assert "majority" in found["store"]["remedy"] or "is etcd there" in found["store"]["remedy"]
            for member in etcd.members:
                member.signal(signal.SIGCONT)
            until(lambda: doctor(one)["store"]["status"] != "fail", "it is well again")
        finally:
            one.kill()


def test_when_the_term_has_ended_for_a_silent_etcd_everybody_says_so(tmp_path: Path) -> None:
    with EtcdCluster(tmp_path / "etcd") as etcd, two_controllers(etcd, tmp_path) as both:
        leader = the_leader(both)
        etcd.members[0].signal(signal.SIGSTOP)
        until(lambda: "leads no longer (epoch 1)" in leader.log, f"its lease of {TTL_S} s is not renewed")
        until(lambda: "nobody leads yet" in cli(leader, "get", "jobs")[2], "it stands by")
        assert "nobody leads yet: it tried at 20" in cli(leader, "get", "jobs")[2]
        found = doctor(leader)
        assert "(STORE_UNAVAILABLE)" in found["store"]["message"]
        assert found["store"]["remedy"]
        (other,) = (one for one in both if one is not leader)
        until(lambda: "and at 20" in cli(other, "get", "jobs")[2], "the other one cannot ask the store either")
        assert "led when the store last answered" in cli(other, "get", "jobs")[2]
        etcd.members[0].signal(signal.SIGCONT)
        assert the_leader(both) in both
