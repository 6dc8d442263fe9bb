"""``python -m trainctl.parallel.doctor_probe``: what torch can do here, as one JSON object on stdout.

The command line asks for it in a process of its own: it never loads torch itself, and a broken torch may crash.
"""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from datetime import timedelta
from typing import Any

from trainctl.core.system.deadline import Deadline

_NCCL_S = 40.0


def probe() -> dict[str, Any]:
    """Version, build and devices; with two devices, one all-reduce of NCCL over them."""
    try:
        import torch
        import torch.distributed as dist
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    backends = {"gloo": dist.is_gloo_available(), "nccl": dist.is_nccl_available()}
    found: dict[str, Any] = {
        "version": torch.__version__,
        "cuda": torch.version.cuda or "",
        "backends": [name for name, there in backends.items() if there],
        "devices": [],
    }
    if not torch.version.cuda:
        return found
    try:
        for index in range(torch.cuda.device_count()):
            sum_of_ones = float(torch.ones(1024, device=f"cuda:{index}").sum())
            assert sum_of_ones == 1024.0, f"device {index} computes wrongly: expected 1024, found {sum_of_ones:g}"
            found["devices"].append(torch.cuda.get_device_name(index))
    except Exception as error:
        found["deviceError"] = f"{type(error).__name__}: {error}".split("\n", 1)[0]
        return found
    if len(found["devices"]) > 1 and backends["nccl"]:
        found["allReduce"] = _all_reduce_two()
    return found


def _all_reduce_two() -> str:
    """``ok``, or what one of two processes said; never waits longer than ``_NCCL_S``."""
    spawn = multiprocessing.get_context("spawn")
    said = spawn.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        ranks = [spawn.Process(target=_one_rank, args=(rank, f"{folder}/store", said), daemon=True) for rank in (0, 1)]
        deadline = Deadline(_NCCL_S)
        for rank in ranks:
            rank.start()
        for rank in ranks:
            rank.join(deadline.left_s)
        missing = [index for index, rank in enumerate(ranks) if rank.exitcode is None]
        for rank in ranks:
            rank.kill()
            rank.join()
    if not said.empty():
        return str(said.get())
    if missing:
        return f"no result within {_NCCL_S:g} s from device {' and '.join(map(str, missing))}"
    codes = [rank.exitcode for rank in ranks]
    return f"the processes ended with exit codes {codes}" if any(codes) else "ok"


def _one_rank(rank: int, store_path: str, said: Any) -> None:
    import torch
    import torch.distributed as dist

    try:
        torch.cuda.set_device(rank)
        limit = timedelta(seconds=_NCCL_S)
        dist.init_process_group("nccl", init_method=f"file://{store_path}", rank=rank, world_size=2, timeout=limit)
        values = torch.full((1024,), float(rank + 1), device=f"cuda:{rank}")
        dist.all_reduce(values)  # pyright: ignore[reportUnknownMemberType]  (torch gives its parameters no types)
        low, high = float(values.min()), float(values.max())
        if (low, high) != (3.0, 3.0):
            raise ValueError(f"expected a sum of 3 everywhere, found {low:g} to {high:g}")
        dist.destroy_process_group()
    except Exception as error:
        said.put(f"device {rank}: {type(error).__name__}: {error}".split("\n", 1)[0])


if __name__ == "__main__":
    print(json.dumps(probe()))
