"""Without it a job could compute on a device that is not its own, or on the CPU without saying so."""

from __future__ import annotations

import pytest
import torch

from trainctl.core.errors import PreconditionError
from trainctl.core.records.spec import ResourcesSpec
from trainctl.parallel.tasks.device import LOCAL_RANK_VARIABLE, device_of


def test_a_job_without_accelerators_computes_on_the_cpu_wherever_it_runs() -> None:
    assert device_of(ResourcesSpec(workers_per_node=4)) == torch.device("cpu")


def test_a_worker_without_a_device_of_its_own_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOCAL_RANK_VARIABLE, "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(
        PreconditionError, match=r"expected CUDA device 3 for worker 3 of this node, found 2 device\(s\)"
    ):
        device_of(ResourcesSpec(workers_per_node=4, accelerators_per_node=4))
