"""Which variables of a job say how its workers reach a storage. Pure."""

from __future__ import annotations

from trainctl.core.records.spec import TrainJob

_PREFIXES = ("AWS_", "GOOGLE_", "GCS_", "AZURE_", "FSSPEC_", "HADOOP_")


def is_credential(name: str) -> bool:
    """Whether drivers of storages look at a variable of this name."""
    return name.startswith(_PREFIXES)


def brings_credentials(job: TrainJob) -> bool:
    """Whether the workers reach a storage in a way of their own, so that only they can say whether they do."""
    return any(is_credential(name) for name in (*job.spec.env, *job.spec.secret_env))
