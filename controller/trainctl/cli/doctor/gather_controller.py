"""Asks the controller, as any other command would."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from trainctl.cli.config.settings import resolve
from trainctl.cli.connection.certificates import look_at
from trainctl.cli.connection.client import Client, find_job, list_jobs
from trainctl.cli.connection.connecting import Endpoint, find_endpoint, timeout_s
from trainctl.cli.context import Context
from trainctl.cli.doctor.facts import Controller, JobFacts, Node, Store
from trainctl.cli.doctor.gather_storage import Place, is_here, places_of_jobs, try_all
from trainctl.cli.doctor.job_env import JobEnv, job_env, secrets_folder
from trainctl.cli.phases import has_ended
from trainctl.core.errors import TrainctlError, UnavailableError
from trainctl.core.system.run_folder import read_controller
from trainctl.core.units import parse_duration_s
from trainctl.protos.v1.job_pb2 import GetVersionRequest, Job, ListNodesRequest, NodeStatus

_LONGEST_S = 5.0
_FOR_STORE = 0.7
"""Part of that which the controller may wait for the store, so that its answer is still in time."""
_READY = "READY"


def look(context: Context, job_name: str | None) -> tuple[Controller, JobFacts | None, tuple[Place, ...]]:
    """Facts about the controller and, if one is named, about a job; without one, where the jobs that run save to."""
    endpoint: Endpoint | None = None
    try:
        settings = resolve(context)
        endpoint = find_endpoint(context, settings)
        limit_s = min(timeout_s(settings), _LONGEST_S)
        with Client(endpoint, timeout_s=limit_s, detail=context.console.detail) as client:
            controller = _ask(context, client)
            controller = replace(controller, store=_store(client, limit_s))
            job = None if job_name is None else _job(context, client, job_name)
            return controller, job, () if job is not None else _places(context, client, controller)
    except TrainctlError as error:
        job = JobFacts(name=job_name, error=f"nothing is known about job {job_name}: {error}") if job_name else None
        pid = _local_pid(context, endpoint)
        known = Controller(
            address=endpoint.address if endpoint is not None else "",
            error=str(error),
            error_code=error.code,
            cause=error.cause,
            remedy=error.hint,
            local_pid=pid,
            frozen=bool(pid) and _is_stopped(pid),
        )
        return known, job, ()


def _ask(context: Context, client: Client) -> Controller:
    begun_s, wall_s = time.monotonic(), time.time()
    answer = client.call(client.stub.GetVersion, GetVersionRequest())
    took_s = time.monotonic() - begun_s
    nodes = client.call(client.stub.ListNodes, ListNodesRequest()).nodes
    certificates = look_at(client.endpoint)
    return Controller(
        address=client.endpoint.address,
        version=answer.version,
        wire_version=answer.wire_version,
        skew_s=answer.time_s - (wall_s + took_s / 2) if answer.time_s else None,
        round_trip_s=took_s,
        doubt=answer.doubt,
        nodes=tuple(_node(node, wall_s) for node in nodes),
        local_pid=_local_pid(context, client.endpoint),
        certificate_left_s=certificates.controller - wall_s if certificates is not None else None,
        authority_left_s=certificates.authority - wall_s if certificates is not None else None,
    )


def _store(client: Client, limit_s: float) -> Store | None:
    """How the state store is, None if the controller is too old to say; one that falls silent now has a reason."""
    try:
        answer = client.call(client.stub.GetVersion, GetVersionRequest(store_within_s=_FOR_STORE * limit_s))
    except UnavailableError as error:
        return Store(where="the state store", error=str(error), error_code=error.code, remedy=error.hint)
    if not answer.HasField("store_status"):
        return None
    found = answer.store_status
    return Store(
        where=answer.store,
        took_s=found.took_s,
        error=found.error,
        error_code=found.error_code,
        remedy=found.remedy,
        size_bytes=found.size_bytes,
        limit_bytes=found.limit_bytes,
        disk_free_bytes=found.disk_free_bytes if found.HasField("disk_free_bytes") else None,
        alarms=tuple(found.alarms),
        flaw=found.flaw,
        confirmed_age_s=found.confirmed_age_s,
        confirmed_took_s=found.confirmed_took_s,
        failed=found.failed,
        failed_age_s=found.failed_age_s,
        jobs_in_doubt=found.jobs_in_doubt,
    )


def _node(node: NodeStatus, wall_s: float) -> Node:
    ends_s = node.certificate_expires_s
    return Node(
        name=node.node,
        state=node.state,
        silent_s=node.last_heard_age_s,
        version=node.version,
        certificate_left_s=ends_s - wall_s if ends_s else None,
    )


def _job(context: Context, client: Client, name: str) -> JobFacts:
    try:
        job = find_job(context, client, name)
    except TrainctlError as error:
        return JobFacts(name=name, error=str(error))
    spec = job.effective_spec.spec
    nodes = client.call(client.stub.ListNodes, ListNodesRequest()).nodes
    return JobFacts(
        name=job.spec.metadata.name,
        phase=job.status.phase,
        reason=job.status.reason,
        profile=spec.recovery.profile,
        replacement_wait_s=parse_duration_s(spec.recovery.replacement_wait or "0s"),
        wanted_slots=spec.nodes.min * spec.resources.workers_per_node,
        free_slots=sum(node.slots - node.slots_used for node in nodes if node.state == _READY),
        cuda=spec.resources.accelerators_per_node > 0,
        recoveries=job.status.recovery_count,
        storages=try_all(_places_of(job, _env_of(context, job)), context.env),
    )


def _places(context: Context, client: Client, controller: Controller) -> tuple[Place, ...]:
    jobs = [job for job in list_jobs(client) if not has_ended(job.status.phase)]
    return places_of_jobs(
        ((job.spec.metadata.name, _saves_to(job)) for job in jobs),
        default=str(context.run_dir / "jobs"),
        local=bool(controller.local_pid),
    )


def _places_of(job: Job, env: JobEnv) -> list[Place]:
    uri, data = _saves_to(job), job.effective_spec.spec.train.data.uri
    found = [Place(field="spec.checkpoint.uri", uri=uri, needed_bytes=_size_bytes(job), job=env)] if uri else []
    if not is_here(data):
        found.append(Place(field="spec.train.data.uri", uri=data, write=False, job=env))
    return found


def _env_of(context: Context, job: Job) -> JobEnv:
    spec = job.effective_spec.spec
    return job_env(spec.env, spec.secret_env, secrets_folder(context), own=context.env)


def _saves_to(job: Job) -> str:
    return job.effective_spec.spec.checkpoint.uri or job.status.workdir


def _size_bytes(job: Job) -> int:
    """Of the newest checkpoint, if it lies where this machine can see it."""
    folder_of = Path(job.status.checkpoint.uri)
    if not job.status.checkpoint.uri or not folder_of.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder_of.rglob("*") if path.is_file())


def _local_pid(context: Context, endpoint: Endpoint | None) -> int:
    """The process of the local controller, if that is the one that was asked and it lives."""
    try:
        controller = read_controller(context.run_dir)
    except TrainctlError:
        return 0
    if controller is None or not controller.alive or endpoint is None or controller.address != endpoint.address:
        return 0
    return controller.process.pid


def _is_stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in ("T", "t")
