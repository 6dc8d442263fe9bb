"""The API over fail-overs looks as if one controller had answered one call after the other.

Without it somebody could be told that a job is cancelled, and find it running after a fail-over.
"""

from __future__ import annotations

import math
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from etcd_store.controllers import TOKEN, ControllerProcess, answers, two_controllers
from etcd_store.linearizability import UNKNOWN, Named, Operation, is_linearizable, step_of_name
from etcd_store.servers import EtcdCluster
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import job_pb2, job_pb2_grpc, records_pb2
from trainctl.protos.version import call_metadata

NAMES = ("a", "b")
CLIENTS = 4
PATIENCE_S = 20.0
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED", "REJECTED")
KNOWN = {"NOT_FOUND": "absent", "CONFLICT": "exists", "ILLEGAL_TRANSITION": "refused", "PRECONDITION": "refused"}


def operation(began_s: float, ended_s: float, what: str, argument: Any, result: Any) -> Operation:
    return Operation(began_s, ended_s, what, argument, result)


RIGHT: Sequence[Sequence[Operation]] = (
    (operation(0, 1, "create", "x", "ok"), operation(2, 3, "get", "", ("x", "live", 1))),
    # Two at the same time, in whatever order.
    (operation(0, 5, "create", "x", "exists"), operation(0, 5, "create", "y", "ok")),
    # No answer, but it happened; or it did not.
    (operation(0, math.inf, "create", "x", UNKNOWN), operation(2, 3, "get", "", ("x", "live", 1))),
    (operation(0, math.inf, "create", "x", UNKNOWN), operation(2, 3, "get", "", "absent")),
    # It happens later than somebody who did not see it.
    (
        operation(0, math.inf, "create", "x", UNKNOWN),
        operation(2, 3, "get", "", "absent"),
        operation(4, 5, "get", "", ("x", "live", 1)),
    ),
    # A job that is cancelled ends by itself some time.
    (
        operation(0, 1, "create", "x", "ok"),
        operation(2, 3, "cancel", "", "ok"),
        operation(4, 5, "get", "", ("x", "ending", 1)),
        operation(6, 7, "create", "y", "ok"),
    ),
)
WRONG: Sequence[Sequence[Operation]] = (
    # Lost.
    (operation(0, 1, "create", "x", "ok"), operation(2, 3, "get", "", "absent")),
    # Twice.
    (operation(0, 1, "create", "x", "ok"), operation(2, 3, "create", "y", "ok")),
    # Out of nowhere, and before it was asked for.
    (operation(0, 1, "get", "", ("x", "live", 1)),),
    (operation(0, 1, "get", "", ("x", "live", 1)), operation(2, 3, "create", "x", "ok")),
    # Seen, and then not any more.
    (
        operation(0, math.inf, "create", "x", UNKNOWN),
        operation(2, 3, "get", "", ("x", "live", 1)),
        operation(4, 5, "get", "", "absent"),
    ),
    # An old value is read.
    (
        operation(0, 1, "create", "x", "ok"),
        operation(2, 3, "scale", 5, "ok"),
        operation(4, 5, "get", "", ("x", "live", 1)),
    ),
    # What ended comes back.
    (
        operation(0, 1, "create", "x", "ok"),
        operation(2, 3, "cancel", "", "ok"),
        operation(4, 5, "get", "", ("x", "ended", 1)),
        operation(6, 7, "get", "", ("x", "live", 1)),
    ),
)


@pytest.mark.parametrize("history", RIGHT)
def test_right_histories_are_found_right(history: Sequence[Operation]) -> None:
    assert is_linearizable(history, Named(), step_of_name)


@pytest.mark.parametrize("history", WRONG)
def test_broken_histories_are_caught(history: Sequence[Operation]) -> None:
    assert not is_linearizable(history, Named(), step_of_name)


@pytest.mark.parametrize("seed", range(10))
def test_what_one_after_the_other_did_is_right_and_a_changed_answer_is_not(seed: int) -> None:
    """Random histories of clients that overlap, made by letting each operation happen somewhere in its time."""
    rng = random.Random(seed)
    state, history = Named(), []
    for number in range(40):
        at_s = number + rng.random() / 2
        what = rng.choice(["create", "get", "scale", "cancel", "get"])
        argument: Any = f"j{number}" if what == "create" else rng.randrange(1, 9) if what == "scale" else ""
        results = [*KNOWN.values(), "ok", (state.job, state.phase, state.most)]
        fits = [(r, after) for r in results for after in step_of_name(state, Operation(0, 0, what, argument, r))]
        result, state = rng.choice(sorted(fits, key=repr))
        history.append(Operation(at_s - rng.random() * 2, at_s + rng.random() * 2, what, argument, result))
    assert is_linearizable(history, Named(), step_of_name)
    reads = [i for i, one in enumerate(history) if one.what == "get" and one.result != "absent"]
    if reads:
        one = history[reads[0]]
        history[reads[0]] = Operation(one.began_s, one.ended_s, one.what, one.argument, ("never", "live", 1))
        assert not is_linearizable(history, Named(), step_of_name)


@dataclass
class ApiClient:
    """Calls whichever controller answers; every call is written down as it was seen."""

    controllers: list[ControllerProcess]
    seed: int
    over: threading.Event
    history: dict[str, list[Operation]] = field(default_factory=lambda: {name: [] for name in NAMES})
    _turn: int = 0

    def run(self) -> None:
        rng = random.Random(self.seed)
        number = 0
        while not self.over.is_set():
            number += 1
            name, what = rng.choice(NAMES), rng.choice(["create", "get", "get", "scale", "cancel"])
            marker = f"c{self.seed}-{number}"
            self._do(name, what, marker if what == "create" else rng.randrange(1, 9))
            time.sleep(rng.uniform(0.02, 0.25))

    def _do(self, name: str, what: str, argument: Any) -> None:
        call, can_repeat = self._call(name, what, argument)
        began_s = time.monotonic()
        result = self._try(call)
        while result is UNKNOWN and can_repeat and time.monotonic() < began_s + PATIENCE_S:
            time.sleep(0.05)
            result = self._try(call)
        if what == "get" and result is UNKNOWN:
            return
        ended_s = math.inf if result is UNKNOWN else time.monotonic()
        self.history[name].append(Operation(began_s, ended_s, what, argument, result))

    def _call(self, name: str, what: str, argument: Any) -> tuple[Callable[[Any], Any], bool]:
        """How to ask and to read the answer; and whether asking again has no second effect."""
        request_id = str(uuid.uuid4())
        if what == "create":
            job = records_pb2.TrainJob(metadata=records_pb2.JobMetadata(name=name))
            job.spec.command.append("true")
            job.spec.env["WHO"] = argument
            create = job_pb2.CreateJobRequest(job=job, request_id=request_id)
            return lambda stub: stub("CreateJob", create) and "ok", True
        if what == "scale":
            scale = job_pb2.ScaleJobRequest(name=name, max=argument, min=1, request_id=request_id)
            return lambda stub: stub("ScaleJob", scale) and "ok", True
        if what == "cancel":
            return lambda stub: stub("CancelJob", job_pb2.CancelJobRequest(name=name)) and "ok", False
        return lambda stub: _shown(stub("GetJob", job_pb2.GetJobRequest(name=name)).job), True

    def _try(self, call: Callable[[Any], Any]) -> Any:
        one = self.controllers[self._turn % len(self.controllers)]
        try:
            with grpc.insecure_channel(one.address or "127.0.0.1:1") as channel:
                stub = job_pb2_grpc.JobServiceStub(channel)
                return call(
                    lambda method, request: getattr(stub, method)(request, timeout=1.0, metadata=call_metadata(TOKEN))
                )
        except grpc.RpcError as error:
            code = error_from_rpc(error).code
            if code in KNOWN:
                return KNOWN[code]
            self._turn += 1
            return UNKNOWN


def _shown(job: job_pb2.Job) -> tuple[str, str, int]:
    phase = job.status.phase
    known = "ended" if phase in ENDED else "ending" if phase == "CANCELLING" else "live"
    return job.spec.spec.env["WHO"], known, job.effective_spec.spec.nodes.max


def test_the_api_is_linearizable_over_failovers(etcd: EtcdCluster, tmp_path: Path) -> None:
    with two_controllers(etcd, tmp_path) as both:
        over = threading.Event()
        clients = [ApiClient(both, seed, over) for seed in range(CLIENTS)]
        threads = [threading.Thread(target=client.run, daemon=True) for client in clients]
        for thread in threads:
            thread.start()
        for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
            leader = _leader(both)
            time.sleep(1.5)
            leader.send(number)
            leader.wait()
            _leader([one for one in both if one is not leader])
            leader.start()
        time.sleep(1.5)
        over.set()
        for thread in threads:
            thread.join(2 * PATIENCE_S)
        for name in NAMES:
            history = [one for client in clients for one in client.history[name]]
            seen = {one.result if isinstance(one.result, str) else one.what for one in history}
            assert {"ok", "exists", "get"} <= seen
            assert is_linearizable(history, Named(), step_of_name), "\n".join(
                str(one) for one in sorted(history, key=lambda one: one.began_s)
            )


def _leader(controllers: list[ControllerProcess]) -> ControllerProcess:
    deadline_s = time.monotonic() + 3 * PATIENCE_S
    while time.monotonic() < deadline_s:
        for one in controllers:
            if one.address and answers(one.address):
                return one
        time.sleep(0.02)
    raise AssertionError("nobody leads:\n" + "\n".join(one.log[-2000:] for one in controllers))


def test_one_request_sent_fifty_times_makes_one_job(etcd: EtcdCluster, tmp_path: Path) -> None:
    """To both controllers, with answers that nobody waits for, while the leader is killed."""
    job = records_pb2.TrainJob(metadata=records_pb2.JobMetadata(name="once"))
    job.spec.command.append("true")
    request = job_pb2.CreateJobRequest(job=job, request_id=str(uuid.uuid4()))
    uids: list[str] = []

    def send(number: int, controllers: list[ControllerProcess]) -> None:
        rng, deadline_s = random.Random(number), time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            one = rng.choice(controllers)
            with grpc.insecure_channel(one.address or "127.0.0.1:1") as channel:
                stub = job_pb2_grpc.JobServiceStub(channel)
                try:
                    patience_s = rng.choice([0.01, 0.05, 2.0])
                    answer = stub.CreateJob(request, timeout=patience_s, metadata=call_metadata(TOKEN))
                except grpc.RpcError:
                    continue
                uids.append(answer.job.uid)
                return

    with two_controllers(etcd, tmp_path) as both:
        leader = _leader(both)
        threads = [threading.Thread(target=send, args=(number, both), daemon=True) for number in range(50)]
        for thread in threads:
            thread.start()
        leader.send(signal.SIGKILL)
        leader.wait()
        _leader([one for one in both if one is not leader])
        for thread in threads:
            thread.join(2 * PATIENCE_S)
        heir = _leader([one for one in both if one is not leader])
        with grpc.insecure_channel(heir.address) as channel:
            listed = job_pb2_grpc.JobServiceStub(channel).ListJobs(
                job_pb2.ListJobsRequest(), timeout=10, metadata=call_metadata(TOKEN)
            )
        assert [job.uid for job in listed.jobs] == sorted(set(uids))
        assert uids
