"""Versions of etcd that lose data.

Without it somebody would trust an etcd that forgets what it confirmed, and blame the controller for the jobs.
"""

from __future__ import annotations

import pytest

from trainctl.controller.store.etcd.flaws import flaw_of


@pytest.mark.parametrize("version", ["3.5.0", "3.5.1", "3.5.2", "3.5.2+git"])
def test_a_version_that_loses_data_is_named_with_what_helps(version: str) -> None:
    flaw = flaw_of(version)
    assert version in flaw
    assert "3.5.3" in flaw
    assert "--backend-batch-limit=1" in flaw


@pytest.mark.parametrize("version", ["3.4.30", "3.5.3", "3.5.21", "3.6.0", "", "unknown", "3.5"])
def test_others_are_not_suspected(version: str) -> None:
    assert flaw_of(version) == ""
