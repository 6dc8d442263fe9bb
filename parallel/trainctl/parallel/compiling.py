"""``spec.train.compile``: the model through ``torch.compile``, compiled before the worker says that it is ready."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from trainctl.core.errors import Problem, SpecError
from trainctl.parallel.replica.generators import seed_generators
from trainctl.parallel.tasks.task import Evaluate, TaskParts

FIELD = "spec.train.compile"
_CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_OPTIONS = MappingProxyType({"fx_graph_cache": False, "compile_threads": 1})
"""No cache of graphs, which torch keeps as pickles; no pool of processes that could outlive a worker."""


def compile_model(
    task: TaskParts, evaluation: Evaluate | None, *, samples: int, cache_dir: Path, device: torch.device
) -> None:
    """Compiles the model in place for the shapes that the run will have; names and values of its state stay.

    Shapes are static: what a worker computes must not depend on which shapes it met before. Kernels are kept as shared
    libraries under ``cache_dir``, where the other workers of the node and later replacements find them.

    Args:
        task: its model becomes a compiled one; ``task.loss`` runs it.
        evaluation: compiled for, too.
        samples: of a micro-batch.
        cache_dir: folder of the node.
        device: of the model.

    Raises:
        SpecError: there is no compiler, or it does not take the model.
    """
    os.environ.setdefault(_CACHE_VARIABLE, str(cache_dir / "inductor"))
    if device.type == "cpu":
        _check_compiler()
    task.model.compile(dynamic=False, options=dict(_OPTIONS))
    print("compiling the model for its first use ...", flush=True)
    with _compile_errors(), _buffers_kept(task.model):
        seed_generators(0)
        ids = [number % task.dataset.num_samples for number in range(samples)]
        loss_sum, _ = task.loss(task.dataset.batch(ids))
        loss_sum.backward()  # type: ignore[no-untyped-call]
        for item in {0, evaluation.num_items - 1} if evaluation is not None and evaluation.num_items else ():
            evaluation(item)
    task.model.zero_grad(set_to_none=True)


def _check_compiler() -> None:
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise _wrong(
            "torch.compile needs a C++ compiler on every node, found none on this one",
            hint="install one (on Debian: apt-get install g++), or set compile: false",
        ) from error


@contextmanager
def _compile_errors() -> Iterator[None]:
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import CppCompileError

    try:
        yield
    except (TorchDynamoException, CppCompileError) as error:
        traceback.print_exception(error)
        lines = str(error).strip().splitlines()
        raise _wrong(
            f"torch.compile does not take this model: {lines[0] if lines else type(error).__name__}",
            hint="the traceback in the worker's log says where; compile: false trains without",
        ) from error


@contextmanager
def _buffers_kept(model: nn.Module) -> Iterator[None]:
    """What a trial run changes in the buffers (running means) is undone."""
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    yield
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])


def _wrong(message: str, *, hint: str) -> SpecError:
    return SpecError((Problem(path=FIELD, message=message),), source="spec.train", hint=hint)
