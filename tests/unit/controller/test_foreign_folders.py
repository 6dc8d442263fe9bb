"""Folders of other jobs are known, however they are spelled.

Without it a job reads or removes the checkpoints of another tenant.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.controller.jobs.foreign_folders import _is_foreign

JOBS = Path("/srv/jobs")


@pytest.mark.parametrize("uri", ["s3://b/x", "s3://b/x/y", "s3a://b/x/y", "S3://b/x/"])
def test_a_bucket_of_another_tenant_has_several_names(uri: str) -> None:
    assert _is_foreign(uri, set(), ["s3://b/x"], JOBS)
    assert _is_foreign(uri, set(), ["s3a://b/x/"], JOBS)


@pytest.mark.parametrize("uri", ["s3://b/xy", "s3://c/x", "gs://b/x", "/srv/jobs/own/x", "/srv/jobs"])
def test_what_is_nobodys_or_ones_own_is_not_foreign(uri: str) -> None:
    assert not _is_foreign(uri, {"own"}, ["s3://b/x"], JOBS)
