"""Jobs that have ended, and what they saved."""

from __future__ import annotations

from pathlib import Path

from trainctl.checkpoint.manifest.codec import dump_root
from trainctl.checkpoint.manifest.names import attempt_id
from trainctl.checkpoint.manifest.records import RootManifest
from trainctl.checkpoint.save.attempts import Attempt
from trainctl.protos.v1 import job_pb2
from unit.controller.controller_harness import Client


def save(root: Path, job: str, step: int) -> Path:
    """A complete attempt of a job, without tensors."""
    attempt = Attempt(job=job, step=step, lineage=1, epoch=1, attempt=attempt_id(job, step))
    folder = root / attempt.folder
    (folder / "data").mkdir(parents=True)
    manifest = RootManifest(
        tcf=1, job=job, step=step, attempt=attempt.attempt, lineage=1, epoch=1, created="", parts=(), artifacts=(),
        tensors=0, data_bytes=0, schema_sha256="",
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(dump_root(manifest))
    return folder


async def cancelled(client: Client, name: str = "a") -> job_pb2.Job:
    await client.call("CancelJob", job_pb2.CancelJobRequest(name=name))
    return await client.until_phase(name, "CANCELLED")
