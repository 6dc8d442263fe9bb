"""Every failing case of the doctor as data; and one run of the whole command on this machine.

Without it the doctor could call an installation well that cannot train.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainctl.cli.doctor import gather_processes, gather_storage
from trainctl.cli.doctor.check_software import fits
from trainctl.cli.doctor.checks import examine
from trainctl.cli.doctor.facts import (
    Controller,
    Driver,
    Facts,
    Folder,
    JobFacts,
    Machine,
    Node,
    Requirement,
    Software,
    Storage,
    Store,
    Torch,
)
from trainctl.cli.doctor.finding import Status, healthy
from trainctl.cli.doctor.gather_machine import driver, folder, software
from trainctl.cli.doctor.gather_storage import Place, places_of_jobs, try_all
from trainctl.core.timeouts import PROFILES
from trainctl.protos.v1.job_pb2 import NodeStatus, StoreStatus
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

GIB = 2**30
NODES = (Node(name="node-0", state="READY", silent_s=0.1, version="1"),)
STORE = Store(
    where="etcd://e:2379/team",
    took_s=0.004,
    size_bytes=2**20,
    limit_bytes=2 * GIB,
    confirmed_age_s=75.0,
    confirmed_took_s=0.003,
)
FILE = replace(STORE, where="file:/run/store.sqlite3", limit_bytes=4096 * GIB, disk_free_bytes=50 * GIB)
WELL = Facts(
    machine=Machine(
        python=(3, 12, 1),
        host="here",
        host_error="",
        resolve_s=0.01,
        loopback_error="",
        home=Folder(path="/home/me/.trainctl", free_bytes=50 * GIB),
        shm_bytes=GIB,
        open_files=(65536, 65536),
        processes=-1,
        cores=4,
    ),
    software=Software(
        own_version="1",
        requirements=(
            Requirement(name="grpcio", bounds=">=1.80", extra=""),
            Requirement(name="torch", bounds=">=2.6", extra="agent"),
            Requirement(name="numpy", bounds=">=2", extra="agent"),
        ),
        installed={"grpcio": "1.81.0", "torch": "2.13.0+cpu", "numpy": "2.1"},
    ),
    torch=Torch(version="2.13.0", cuda="12.6", backends=("gloo", "nccl"), devices=("H200", "H200"), all_reduce="ok"),
    driver=Driver(version="560.1", devices=2),
    controller=Controller(
        address="127.0.0.1:1", version="1", wire_version=1, skew_s=0.01, nodes=NODES, local_pid=5, store=STORE
    ),
    local=True,
    wire_version=1,
    timeouts={"heartbeat_s": 1.0, "boot_s": 180.0},
)


def well(**changes: Any) -> Facts:
    """The healthy facts with some of their parts' fields changed: ``machine={"shm_bytes": 0}``."""
    parts = {
        name: replace(getattr(WELL, name), **change) if isinstance(change, dict) and name != "timeouts" else change
        for name, change in changes.items()
    }
    return replace(WELL, **parts)


def job(**facts: Any) -> JobFacts:
    return JobFacts(**{"name": "a", "phase": "RUNNING", "profile": "fast", **facts})


def storage(**facts: Any) -> JobFacts:
    return job(storages=(Storage(field="spec.checkpoint.uri", uri="/save", **facts),))


def store(of: Store = STORE, **facts: Any) -> Facts:
    return well(controller={"store": replace(of, **facts)})


def silent(*states: str) -> dict[str, Any]:
    return {"nodes": tuple(Node(name=f"n{i}", state=s, silent_s=70, version="1") for i, s in enumerate(states))}


def test_a_healthy_machine_has_nothing_to_do() -> None:
    findings = examine(WELL)
    assert [(f.check, f.message) for f in findings if f.status is not Status.OK] == []
    assert all(not finding.remedy for finding in findings)
    assert len(findings) >= 15
    assert "heartbeat 1s, boot 3m" in findings[-1].message


@pytest.mark.parametrize(
    ("soft", "hard", "begins", "root"),
    [
        (1024, 8192, "ulimit -n 4096, then", False),
        (1024, -1, "ulimit -n 4096, then", False),
        (64, 2048, "ulimit -n 2048; for 4096 let root raise the hard limit of 2048", True),
        (100, 100, "let root raise the hard limit of 100", True),
    ],
)
def test_the_remedy_for_few_open_files_can_work(soft: int, hard: int, begins: str, root: bool) -> None:
    (finding,) = (f for f in examine(well(machine={"open_files": (soft, hard)})) if f.check == "open files")
    assert finding.remedy.startswith(begins)
    assert ("limits.conf" in finding.remedy) == root


CASES: list[tuple[str, str, Status, Facts, str]] = [
    ("old store", "controller", Status.FAIL, well(controller={"doubt": "epoch 99"}), "acts on nothing: epoch 99"),
    ("old python", "python", Status.FAIL, well(machine={"python": (3, 10, 2)}), "3.10.2"),
    (
        "no home",
        "TRAINCTL_HOME",
        Status.FAIL,
        well(machine={"home": Folder(path="/x", error="Read-only")}),
        "Read-only",
    ),
    ("full home", "TRAINCTL_HOME", Status.FAIL, well(machine={"home": Folder(path="/x", free_bytes=5)}), "5 B"),
    ("tight home", "TRAINCTL_HOME", Status.WARN, well(machine={"home": Folder(path="/x", free_bytes=GIB)}), "1.0 GiB"),
    ("no shm", "/dev/shm", Status.FAIL, well(machine={"shm_bytes": None}), "no /dev/shm"),
    ("small shm", "/dev/shm", Status.WARN, well(machine={"shm_bytes": 2**20}), "1.0 MiB"),
    ("few files", "open files", Status.WARN, well(machine={"open_files": (1024, 8192)}), "1024"),
    ("very few files", "open files", Status.FAIL, well(machine={"open_files": (64, 64)}), "64"),
    ("few processes", "processes", Status.WARN, well(machine={"processes": 100}), "100"),
    ("nameless", "host name", Status.FAIL, well(machine={"host_error": "Name not known"}), "Name not known"),
    ("slow name", "host name", Status.WARN, well(machine={"resolve_s": 5.0}), "5.0 s"),
    ("no loopback", "ports", Status.FAIL, well(machine={"loopback_error": "in use"}), "in use"),
    ("old grpc", "packages", Status.FAIL, well(software={"installed": {"grpcio": "1.60"}}), "expected >=1.80"),
    ("source tree", "packages", Status.WARN, well(software={"requirements": ()}), "not installed as a package"),
    (
        "half an extra",
        "extra agent",
        Status.WARN,
        well(local=False, software={"installed": {"grpcio": "2", "torch": "3"}}),
        "numpy",
    ),
    ("no extra", "extra agent", Status.FAIL, well(software={"installed": {"grpcio": "2"}}), "workers run here"),
    (
        "old numpy",
        "extra agent",
        Status.FAIL,
        well(software={"installed": {"grpcio": "2", "torch": "3", "numpy": "1"}}),
        "numpy 1",
    ),
    ("broken torch", "torch", Status.FAIL, well(torch=Torch(error="libcudart.so: no such file")), "libcudart"),
    ("no gloo", "torch", Status.FAIL, well(torch={"backends": ("nccl",)}), "no gloo"),
    ("broken torch on a GPU", "CUDA", Status.WARN, well(torch=Torch(error="x")), "driver 560.1"),
    ("torch for the CPU", "CUDA", Status.FAIL, well(torch={"cuda": ""}), "built for the CPU only"),
    (
        "old driver",
        "CUDA",
        Status.FAIL,
        well(torch={"devices": (), "device_error": "driver too old"}),
        "driver too old",
    ),
    (
        "hidden devices",
        "CUDA",
        Status.FAIL,
        well(torch={"devices": ()}, driver={"visible": ""}),
        "CUDA_VISIBLE_DEVICES=''",
    ),
    ("no driver for the job", "CUDA", Status.FAIL, well(driver=Driver(), job=job(cuda=True)), "no NVIDIA driver"),
    ("no nccl", "NCCL", Status.FAIL, well(torch={"backends": ("gloo",)}), "no NCCL"),
    ("broken nccl", "NCCL", Status.FAIL, well(torch={"all_reduce": "device 1: timed out"}), "device 1: timed out"),
    ("no controller", "controller", Status.FAIL, well(controller={"error": "nobody", "remedy": "up"}), "nobody"),
    ("frozen controller", "controller", Status.FAIL, well(controller={"error": "late", "frozen": True}), "process 5"),
    (
        "refused version",
        "controller",
        Status.FAIL,
        well(controller={"error": "wire", "error_code": "VERSION_MISMATCH"}),
        "wire",
    ),
    (
        "full store",
        "store",
        Status.FAIL,
        store(error="etcd e:2379: lease_grant: the store is full", remedy="disarm it", alarms=("NOSPACE",)),
        "etcd://e:2379/team takes no writes: etcd e:2379: lease_grant: the store is full; it says NOSPACE; it occupies "
        "1.0 MiB of 2.0 GiB; so it may occupy less than that: name its quota with the option quota of the store's "
        "address; the last change was confirmed 1m15s ago, in 3 ms",
    ),
    (
        "silent store",
        "store",
        Status.FAIL,
        store(error="no answer", size_bytes=0, jobs_in_doubt=2),
        "takes no writes: no answer; the last change was confirmed 1m15s ago, in 3 ms; of 2 jobs it is not known",
    ),
    (
        "silent disk",
        "store",
        Status.FAIL,
        store(FILE, error="did not confirm"),
        "file:/run/store.sqlite3 takes no writes",
    ),
    ("alarming store", "store", Status.FAIL, store(alarms=("CORRUPT",)), "takes writes (4 ms); it says CORRUPT"),
    (
        "a change was lost",
        "store",
        Status.WARN,
        store(failed="txn: no answer", failed_age_s=4.0),
        "in 3 ms; the newest one was not, 4.00s ago: txn: no answer",
    ),
    ("doubtful store", "store", Status.WARN, store(jobs_in_doubt=1), "of 1 job it is not known"),
    ("nearly full store", "store", Status.WARN, store(size_bytes=int(1.7 * GIB)), "1.7 GiB of 2.0 GiB"),
    ("large file", "store", Status.WARN, store(FILE, size_bytes=9, limit_bytes=10), "9 B of 10 B"),
    ("full disk below", "store", Status.WARN, store(FILE, disk_free_bytes=5), "5 B are free on its disk"),
    ("slow store", "store", Status.WARN, store(took_s=3.0), "takes writes (3.0 s)"),
    ("flawed store", "store", Status.WARN, store(flaw="etcd 3.5.1 loses changes"), "takes writes (4 ms)"),
    (
        "nobody leads for it",
        "store",
        Status.FAIL,
        well(controller={"error": "nobody leads", "cause": "STORE_FULL", "remedy": "disarm", "store": None}),
        "no controller can lead with it as it is (STORE_FULL)",
    ),
    ("other wire", "controller", Status.FAIL, well(controller={"wire_version": 9}), "wire version 9"),
    ("other version", "controller", Status.WARN, well(controller={"version": "2"}), "version 2"),
    ("slow controller", "controller", Status.WARN, well(controller={"round_trip_s": 3.0}), "3.0 s"),
    ("skewed clock", "clock", Status.WARN, well(controller={"skew_s": -4.0}), "4.0 s behind"),
    ("wrong clock", "clock", Status.FAIL, well(controller={"skew_s": 3600.0}), "3600.0 s ahead"),
    ("no agents", "agents", Status.WARN, well(controller={"nodes": ()}), "no agent has registered"),
    (
        "a silent agent",
        "agents",
        Status.WARN,
        well(controller=silent("READY", "UNREACHABLE")),
        "n1 (unreachable, 1m10s)",
    ),
    ("silent agents", "agents", Status.FAIL, well(controller=silent("EXITED")), "silent: 1 of 1"),
    ("nobody heard", "agents", Status.FAIL, well(controller=silent("UNREACHABLE", "UNREACHABLE")), "silent: 2 of 2"),
    ("old agent", "agents", Status.WARN, well(controller={"nodes": (replace(NODES[0], version="0"),)}), "node-0 (0)"),
    ("no such job", "job", Status.FAIL, well(job=job(error="no job 'a'")), "no job"),
    ("failed job", "job", Status.FAIL, well(job=job(phase="FAILED", reason="X")), "FAILED (X)"),
    ("no room", "job", Status.WARN, well(job=job(phase="QUEUED", wanted_slots=4, free_slots=1)), "needs 4 free slots"),
    (
        "recovering job",
        "job",
        Status.WARN,
        well(job=job(phase="RECOVERING", recoveries=2)),
        "recovered 2 times",
    ),
    ("no storage", "storage spec.checkpoint.uri", Status.FAIL, well(job=storage(error="refused")), "refused"),
    (
        "weak storage",
        "storage spec.checkpoint.uri",
        Status.WARN,
        well(job=storage(took_s=1.0, notes=("no conditional put", "it lags"))),
        "removed in 1.00s, but: no conditional put; it lags",
    ),
    (
        "no room for a named place",
        "storage --storage",
        Status.FAIL,
        replace(WELL, storages=(Storage(field="--storage", uri="/x", took_s=0.1, free_bytes=2**20),)),
        "only 1.0 MiB are free in /x",
    ),
    (
        "full storage",
        "storage spec.checkpoint.uri",
        Status.FAIL,
        well(job=storage(free_bytes=GIB, needed_bytes=2 * GIB)),
        "2.0 GiB",
    ),
    (
        "tight storage",
        "storage spec.checkpoint.uri",
        Status.WARN,
        well(job=storage(free_bytes=5 * GIB, needed_bytes=2 * GIB)),
        "5.0 GiB",
    ),
]


@pytest.mark.parametrize(
    ("check", "status", "facts", "words"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_what_is_wrong_is_found_with_a_remedy(check: str, status: Status, facts: Facts, words: str) -> None:
    found = [finding for finding in examine(facts) if finding.check == check]
    (finding,) = [finding for finding in found if finding.status is not Status.OK]
    assert finding.status is status
    assert words in finding.message
    assert finding.remedy
    assert healthy(examine(facts)) == all(f.status is not Status.FAIL for f in examine(facts))


def test_every_check_but_the_informative_one_can_find_something() -> None:
    assert {finding.check for finding in examine(WELL)} - {case[1] for case in CASES} == {"time-outs"}


def test_what_is_absent_on_purpose_is_no_finding() -> None:
    bare = well(
        local=False,
        torch=Torch(error="No module named 'torch'"),
        driver=Driver(),
        software={"installed": {"grpcio": "1.81"}},
        job=storage(),
    )
    assert healthy(examine(bare))
    assert [f.check for f in examine(bare) if f.status is Status.WARN] == []
    one = well(torch={"devices": ("H200",), "all_reduce": ""}, driver={"devices": 1})
    assert any("one device only" in finding.message for finding in examine(one))


def test_a_package_that_another_extra_brought_is_no_half_of_this_one() -> None:
    shared = (
        *WELL.software.requirements,
        *(Requirement(name=n, bounds="", extra="hf") for n in ("numpy", "transformers")),
    )
    whole = well(software={"requirements": shared})
    assert "not installed: transformers" in {finding.message for finding in examine(whole)}
    half = well(local=False, software={"requirements": shared, "installed": {"grpcio": "2", "numpy": "2"}})
    assert {f.check for f in examine(half) if f.status is Status.WARN} >= {"extra hf", "extra agent"}


@pytest.mark.parametrize(
    ("version", "bounds", "fit"),
    [
        ("1.80.0", ">=1.80", True),
        ("1.9", ">=1.80", False),
        ("7.35.1", ">=7.35,<8", True),
        ("8.0", ">=7.35,<8", False),
        ("0.2.0", "==0.2.0", True),
        ("0.2", "==0.2.0", True),
        ("0.2.1", "==0.2.*", True),
        ("0.3.1", "==0.2.*", False),
        ("2.5", "~=2.3", True),
        ("3.0", "~=2.3", False),
        ("2.13.0+cpu", ">=2.6", True),
        ("1!2.0", "!=2.0", False),
        ("5", "", True),
    ],
)
def test_bounds_of_versions(version: str, bounds: str, fit: bool) -> None:
    assert fits(version, bounds) is fit


def test_this_distributions_requirements_are_read() -> None:
    found = software()
    extras = {each.name: each.extra for each in found.requirements}
    assert (extras["grpcio"], extras["torch"]) == ("", "agent")
    assert found.installed["grpcio"] is not None
    assert not [
        f for f in examine(replace(WELL, software=found)) if f.check == "packages" and f.status is not Status.OK
    ]


def test_folders_and_drivers_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder(tmp_path / "not" / "yet").error == ""
    assert folder(Path("/proc/trainctl")).error
    monkeypatch.setattr("trainctl.cli.doctor.gather_machine._DRIVER", tmp_path)
    assert driver({}) == Driver()
    (tmp_path / "gpus" / "0000:01").mkdir(parents=True)
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  560.35.03  Fri Aug 16\n")
    assert driver({"CUDA_VISIBLE_DEVICES": "0"}) == Driver(version="560.35.03", devices=1, visible="0")


def test_probes_that_fail_or_hang_are_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    env = dict(os.environ)
    assert "No module named" in gather_processes.ask("trainctl.nothing", (), env, 30)["error"]
    hung = gather_processes.ask("http.server", ("0", "--bind", "127.0.0.1"), env, 0.5)["error"]
    assert "no answer within 0.5 s" in hung
    found = gather_processes.torch(env)
    assert found.version
    assert "gloo" in found.backends


def examine_store(facts: Facts) -> str:
    return next(finding.message for finding in examine(facts) if finding.check == "store")


def test_what_is_wrong_with_a_store_is_said_with_what_helps_there() -> None:
    def remedy(facts: Facts) -> str:
        return next(finding.remedy for finding in examine(facts) if finding.check == "store")

    assert remedy(store(error="full", remedy="disarm it")) == "disarm it; jobs train on meanwhile"
    assert "a majority of its members" in remedy(store(error="silent"))
    assert "the disk that it lies on" in remedy(store(FILE, error="silent"))
    assert "etcdctl defrag" in remedy(store(size_bytes=2 * GIB))
    assert "etcd" not in remedy(store(FILE, size_bytes=10, limit_bytes=10))
    full = store(error="full", alarms=("NOSPACE",), size_bytes=GIB)
    assert "of 2.0 GiB; so it may occupy less than that: name its quota" in examine_store(full)
    assert "less than that" not in examine_store(store(error="full", alarms=("NOSPACE",), size_bytes=2 * GIB))
    assert "it occupies 1.0 MiB, 50.0 GiB are free on its disk" in examine_store(store(FILE))


def test_a_doubtful_controller_of_this_machine_is_ended_without_its_workers() -> None:
    def remedy(local_pid: int) -> str:
        facts = well(controller={"doubt": "epoch 99", "local_pid": local_pid})
        return next(finding.remedy for finding in examine(facts) if finding.check == "controller")

    assert "(kill 5, and when it has ended trainctl local up --accept-store)" in remedy(5)
    assert "kill" not in remedy(0)


def test_an_older_controller_says_nothing_of_its_store() -> None:
    assert "store" not in {finding.check for finding in examine(well(controller={"store": None}))}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather_processes, "torch", lambda env: WELL.torch)


@pytest.mark.usefixtures("quick")
def test_the_command_numbers_its_checks_and_exits_by_them(cli: Cli, controller: FakeController) -> None:
    controller.nodes.append(NodeStatus(node="node-0", state="READY", slots=4))
    done = cli("doctor", "-o", "json")
    data = json.loads(done.out)
    assert [check["number"] for check in data["checks"]] == list(range(1, len(data["checks"]) + 1))
    by_name = {check["check"]: check for check in data["checks"]}
    assert by_name["controller"]["status"] == "warn"  # the fake one has a version of its own
    assert "9.9" in by_name["controller"]["message"]
    assert by_name["agents"]["status"] == "ok"
    assert (done.code, data["healthy"]) == (0, True)
    assert "clock" not in by_name  # the fake one tells no time


@pytest.mark.usefixtures("quick")
def test_the_controller_is_asked_for_its_store_and_given_less_time_than_the_command_has(
    cli: Cli, controller: FakeController
) -> None:
    controller.store_status = StoreStatus(took_s=0.02, size_bytes=2**20, alarms=["NOSPACE"], confirmed_age_s=3.0)
    done = cli("doctor", "--timeout", "2s")
    assert done.code == 1
    assert "fail  store: memory takes writes (20 ms); it says NOSPACE; it occupies 1.0 MiB; the last change" in done.out
    asked = [request.store_within_s for method, request in controller.calls if method == "GetVersion"]
    assert asked == [0.0, pytest.approx(1.4)]


@pytest.mark.usefixtures("quick")
def test_a_controller_that_falls_silent_over_its_store_is_a_finding(cli: Cli, controller: FakeController) -> None:
    def hang(method: str) -> None:
        if controller.calls[-1][0] == "GetVersion" and controller.calls[-1][1].store_within_s:
            ended.wait(10)

    ended = threading.Event()
    controller.on_call = hang
    try:
        done = cli("doctor", "--timeout", "300ms")
    finally:
        ended.set()
    assert "fail  store: the state store takes no writes: the controller at" in done.out
    assert "did not answer within 0.3 s" in done.out
    assert "warn  controller" in done.out  # it answered before


@pytest.mark.usefixtures("quick")
def test_the_job_is_looked_at_with_its_storage(cli: Cli, controller: FakeController, tmp_path: Path) -> None:
    job = controller.add_job("first", "FAILED")
    job.effective_spec.spec.checkpoint.uri = str(tmp_path)
    job.effective_spec.spec.recovery.profile = "fast"
    done = cli("doctor", "--job", "fir")
    assert "fail  job: first is FAILED" in done.out
    assert "do: `trainctl explain first` says why" in done.out
    assert f"free in {tmp_path}" in done.out
    assert f"profile fast: heartbeat {PROFILES['fast'].heartbeat_s:g}s" in done.out
    assert done.code == 1
    assert "no job" in cli("doctor", "--job", "nobody").out


@pytest.mark.usefixtures("quick")
def test_a_named_storage_is_tried_and_left_as_it_was(
    cli: Cli, controller: FakeController, environment: dict[str, str], tmp_path: Path
) -> None:
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    there, not_yet, file = tmp_path / "runs", tmp_path / "not" / "yet", tmp_path / "file"
    there.mkdir()
    file.write_text("x")
    before = sorted(tmp_path.rglob("*"))
    places = [str(there), f"file://{not_yet}", str(file), "s3//bucket/runs", "memory://x"]
    done = cli("doctor", "-o", "json", *(word for place in places for word in ("--storage", place)))
    found = [check for check in json.loads(done.out)["checks"] if check["check"] == "storage --storage"]
    assert [check["status"] for check in found] == ["ok", "ok", "fail", "fail", "ok"]
    assert found[0]["message"].startswith(f"{there}: a file was written, read back, listed and removed in 0.")
    assert "are free in" in found[0]["message"]
    assert "not a folder" in found[2]["message"]
    assert "remove it, or use another place" in found[2]["remedy"]
    assert "s3://bucket/runs" in found[3]["message"]
    assert sorted(tmp_path.rglob("*")) == before
    assert done.code == 1
    assert cli("doctor", "--storage", "").code == 2


@pytest.mark.usefixtures("quick")
def test_without_a_name_it_is_tried_where_jobs_save_to(cli: Cli, controller: FakeController, tmp_path: Path) -> None:
    for name, phase in (("ended", "SUCCEEDED"), ("trains", "RUNNING"), ("beside", "QUEUED")):
        controller.add_job(name, phase).effective_spec.spec.checkpoint.uri = f"memory://{name != 'ended'}"
    controller.add_job("path", "RUNNING", workdir=str(tmp_path / "of-another-machine"))
    names = {check["check"] for check in json.loads(cli("doctor", "-o", "json").out)["checks"]}
    assert len([name for name in names if name.startswith("storage of job")]) == 1
    assert not names & {"storage of job ended", "storage of job path", "storage of jobs"}


def test_what_a_storage_said_to_do_is_the_remedy() -> None:
    said = well(job=storage(error="there is no bucket", hint="make the bucket"))
    (finding,) = [finding for finding in examine(said) if finding.check == "storage spec.checkpoint.uri"]
    assert finding.remedy == "make the bucket"


def test_which_places_are_tried() -> None:
    def tried(*uris: str, local: bool) -> list[str]:
        named = [(f"j{index}", uri) for index, uri in enumerate(uris)]
        return [f"{p.field}: {p.uri}" for p in places_of_jobs(named, default="/home/jobs", local=local)]

    assert tried(local=True) == ["of jobs: /home/jobs"]
    assert tried("/a", "", "/a", "s3://b", local=True) == ["of job j0: /a", "of job j3: s3://b"]
    assert tried("/a", "file:///b", "s3://b", local=False) == ["of job j2: s3://b"], (
        "paths of other machines say nothing"
    )
    assert tried("/a", local=False) == []
    assert len(tried(*(f"/{index}" for index in range(9)), local=True)) == gather_storage.MOST


def test_a_storage_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def ask(module: str, arguments: tuple[str, ...], env: Any, timeout_s: float) -> dict[str, str]:
        asked.append((arguments, timeout_s))
        return {"error": f"no answer within {timeout_s:g} s"}

    monkeypatch.setattr(gather_storage, "ask", ask)
    first, second = try_all([Place(field="--storage", uri="/a"), Place(field="data", uri="s3://b", write=False)], {})
    assert sorted(asked) == [(("/a", "--write"), 40.0), (("s3://b",), 20.0)]
    assert (first.error, second.error, first.took_s) == ("no answer within 40 s", "no answer within 20 s", None)


@pytest.mark.usefixtures("quick")
def test_no_controller_is_one_failing_check(cli: Cli, controller: FakeController) -> None:
    controller.stop()
    done = cli("doctor")
    assert done.code == 1
    assert "fail  controller: no controller answers" in done.out
    assert "clock" not in done.out


@pytest.mark.usefixtures("quick")
def test_a_frozen_controller_of_this_machine_is_recognized(cli: Cli, environment: dict[str, str]) -> None:
    from trainctl.core.system.processes import identify

    process = subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGSTOP)
    try:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        identity = identify(process.pid)
        assert identity is not None
        run_dir = Path(environment["TRAINCTL_HOME"]) / "local"
        run_dir.mkdir(parents=True)
        (run_dir / "token").write_text("x")
        facts = {"pid": identity.pid, "start_ticks": identity.start_ticks, "address": "127.0.0.1:9"}
        (run_dir / "controller.json").write_text(json.dumps(facts))
        del environment["TRAINCTL_ADDRESS"]
        done = cli("doctor", "--timeout", "200ms")
    finally:
        process.kill()
        process.communicate()
    assert f"the process {identity.pid} of the controller at 127.0.0.1:9 is stopped" in done.out
    assert f"kill -CONT {identity.pid}" in done.out
