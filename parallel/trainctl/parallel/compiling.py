"""``spec.train.compile``: the model through ``torch.compile``, compiled before the worker says that it is ready."""

from __future__ import annotations

import os
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

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
    _keep_kernels_in(cache_dir / "inductor")
    if device.type == "cpu":
        _check_compiler()
    _compile_in_place(task.model)
    graphs = _graphs()
    print("compiling the model for its first use ...", flush=True)
    with _compile_errors(), _buffers_kept(task.model):
        seed_generators(0)
        ids = [number % task.dataset.num_samples for number in range(samples)]
        loss_sum, _ = task.loss(task.dataset.batch(ids))
        loss_sum.backward()  # type: ignore[no-untyped-call]
        if evaluation is not None and evaluation.num_items:
            for item in sorted({0, evaluation.num_items - 1}):  # the last one may be smaller
                evaluation(item)
    task.model.zero_grad(set_to_none=True)
    if _graphs() == graphs:
        raise _wrong(
            "torch.compile found nothing in the model that it can compile",
            hint="does the loss call the model itself (model(...), not model.forward or its parts)?",
        )


def _compile_in_place(model: nn.Module) -> None:
    """As ``model.compile``, but with a frame of our own on top: torch's skips models made of torch's modules alone."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return model._call_impl(*arguments, **keywords)  # type: ignore[no-untyped-call]

    # Where ``model.compile`` puts it, too: torch has no public way. ``call`` takes and returns what the model does.
    model._compiled_call_impl = torch.compile(  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType]
        call, dynamic=False, options=dict(_OPTIONS)
    )


def _graphs() -> int:
    """How many graphs this process compiled so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def _keep_kernels_in(folder: Path) -> None:
    """Unless the job file names a folder: torch's own choice is one under /tmp that anybody may make first."""
    if os.environ.get(_CACHE_VARIABLE) in (None, default_cache_dir()):  # importing torch sets it
        os.environ[_CACHE_VARIABLE] = str(folder)


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
def _compile_errors() -> Generator[None, None, None]:
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
def _buffers_kept(model: nn.Module) -> Generator[None, None, None]:
    """What a trial run changes in the buffers (running means) is undone."""
    before = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    yield
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(before[name])


def _wrong(message: str, *, hint: str) -> SpecError:
    return SpecError((Problem(path=FIELD, message=message),), source="spec.train", hint=hint)
