"""What types cannot say: ranges, enumerations, and fields that must fit each other. One small function per group."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

from trainctl.controller.domain.spec.command_rules import command_rules
from trainctl.controller.domain.spec.nodes import Positions
from trainctl.controller.domain.spec.secret_rules import secret_rules
from trainctl.core.errors import Problem
from trainctl.core.findings import Finding, duration, one_of
from trainctl.core.ids import LABEL, is_label
from trainctl.core.import_paths import is_import_path
from trainctl.core.records.spec import API_VERSION, AUTO, DISK, KIND, MEMORY, TrainJob
from trainctl.core.texts import look_alikes, shortened
from trainctl.core.timeouts import PROFILES
from trainctl.core.uris import uri_problem
from trainctl.parallel.plan.data_rules import data_problems, tokenizer_problems
from trainctl.parallel.plan.optimizer_rules import optimizer_problems
from trainctl.parallel.plan.task_rules import task_problems

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
MAX_THREADS = 1024
"""Of one worker: more cores than any machine has."""


def validate(job: TrainJob) -> tuple[Problem, ...]:
    """Everything wrong with a job that is well-formed; empty if it may be submitted."""
    return check(job, Positions())


def check(job: TrainJob, positions: Positions) -> tuple[Problem, ...]:
    """The same, with each problem at its place in the text."""
    return tuple(positions.problem(path, message) for rule in RULES for path, message in rule(job))


def _header(job: TrainJob) -> Iterator[Finding]:
    if job.api_version != API_VERSION:
        yield "apiVersion", f'expected "{API_VERSION}", found "{shortened(job.api_version)}"'
    if job.kind != KIND:
        yield "kind", f'expected "{KIND}", found "{shortened(job.kind)}"'
    for path, name in (("metadata.name", job.metadata.name), ("metadata.tenant", job.metadata.tenant)):
        if not is_label(name):
            yield path, f'expected {LABEL}, found "{shortened(name)}"'
    for key in job.spec.env:
        if not _ENV_NAME.fullmatch(key):
            message = "expected the name of an environment variable (letters, digits, underscores; no digit first)"
            yield f"spec.env.{shortened(key)}", message


def _enumerations(job: TrainJob) -> Iterator[Finding]:
    spec, train = job.spec, job.spec.train
    yield from one_of("spec.recovery.profile", spec.recovery.profile, *PROFILES)
    yield from one_of("spec.parallelism.strategy", spec.parallelism.strategy, "auto", "data")
    yield from one_of("spec.sync.mode", spec.sync.mode, "allreduce")
    yield from one_of("spec.data.ledger", spec.data.ledger, "exact")
    yield from one_of("spec.train.precision", train.precision, "auto", "float32", "float64")
    yield from one_of("spec.train.schedule.kind", train.schedule.kind, "cosine", "constant")
    yield from one_of("spec.checkpoint.layout", spec.checkpoint.layout, "chunked", "hf")
    yield from one_of("spec.checkpoint.snapshots.place", spec.checkpoint.snapshots.place, MEMORY, DISK)
    uri = spec.checkpoint.uri
    if spec.checkpoint.layout == "hf" and "://" in uri and not uri.startswith("file://"):
        yield (
            "spec.checkpoint.layout",
            f"hf takes a folder on disk, where all workers write into one file, found {shortened(uri)}; save "
            "there with chunked, and make a Hugging Face folder of a checkpoint with `trainctl checkpoints export`",
        )
    resume = spec.checkpoint.resume_from
    if resume not in ("none", "latest") and "/" not in resume:
        yield (
            "spec.checkpoint.resumeFrom",
            f'expected none, latest or the URI of a checkpoint, found "{shortened(resume)}"',
        )
    if resume == "latest" and not spec.checkpoint.uri:
        yield (
            "spec.checkpoint.resumeFrom",
            "latest is the newest checkpoint in spec.checkpoint.uri, which is not set: a new job's own folder is empty",
        )


def _places(job: TrainJob) -> Iterator[Finding]:
    checkpoint = job.spec.checkpoint
    for path, uri in (
        ("spec.checkpoint.uri", checkpoint.uri),
        ("spec.checkpoint.resumeFrom", checkpoint.resume_from),
        ("spec.results.uri", job.spec.results.uri),
    ):
        problem = uri_problem(uri)
        if problem:
            yield path, problem


def _numbers(job: TrainJob) -> Iterator[Finding]:
    spec, train = job.spec, job.spec.train
    optimizer = train.optimizer
    yield from _at_least("spec.resources.workersPerNode", spec.resources.workers_per_node, 1)
    yield from _at_least("spec.resources.acceleratorsPerNode", spec.resources.accelerators_per_node, 0)
    threads = spec.resources.threads_per_worker
    if not 0 <= threads <= MAX_THREADS:
        yield "spec.resources.threadsPerWorker", f"expected 0 (the cores' share) to {MAX_THREADS}, found {threads}"
    yield from _at_least("spec.checkpoint.intervalSteps", spec.checkpoint.interval_steps, 0)
    snapshots = spec.checkpoint.snapshots.interval_steps
    yield from _at_least("spec.checkpoint.snapshots.intervalSteps", snapshots, 0)
    yield from _at_least("spec.checkpoint.keep.last", spec.checkpoint.keep.last, 1)
    yield from _at_least("spec.recovery.maxRestarts.user", spec.recovery.max_restarts.user, 0)
    yield from _at_least("spec.recovery.maxRestarts.process", spec.recovery.max_restarts.process, 0)
    yield from _at_least("spec.train.steps", train.steps, 1)
    yield from _at_least("spec.train.seed", train.seed, 0)
    yield from _at_least("spec.train.batch.sequences", train.batch.sequences, 1)
    yield from _at_least("spec.train.batch.microBatches", train.batch.micro_batches, 1)
    yield from _at_least("spec.train.eval.every", train.eval.every, 0)
    yield from _at_least("spec.train.eval.sequences", train.eval.sequences, 1)
    yield from _at_least("spec.train.data.holdOutEvery", train.data.hold_out_every, 2)
    yield from _within("spec.train.optimizer.lr", optimizer.lr, 0.0, math.inf, low_open=True)
    yield from _within("spec.train.optimizer.eps", optimizer.eps, 0.0, math.inf, low_open=True)
    yield from _within("spec.train.optimizer.weightDecay", optimizer.weight_decay, 0.0, math.inf)
    yield from _within("spec.train.optimizer.clipNorm", optimizer.clip_norm, 0.0, math.inf)
    yield from _at_least("spec.train.schedule.warmupSteps", train.schedule.warmup_steps, 0)
    ratio = train.schedule.min_lr_ratio
    if not 0.0 <= ratio <= 1.0:
        yield "spec.train.schedule.minLrRatio", f"expected a number from 0 to 1, found {ratio:g}"


def _at_least(path: str, value: int, least: int) -> Iterator[Finding]:
    if value < least:
        yield path, f"expected at least {least}, found {value}"


def _within(path: str, value: float, low: float, high: float, *, low_open: bool = False) -> Iterator[Finding]:
    """``low <= value < high``, or ``low < value < high``; NaN is in no range."""
    if (value > low if low_open else value >= low) and value < high:
        return
    least = f"greater than {low:g}" if low_open else f"at least {low:g}"
    most = f" and less than {high:g}" if math.isfinite(high) else " and finite"
    yield path, f"expected a number {least}{most}, found {value:g}"


def _betas(job: TrainJob) -> Iterator[Finding]:
    betas = job.spec.train.optimizer.betas
    if len(betas) != 2 or not all(0.0 <= beta < 1.0 for beta in betas):
        found = shortened(", ".join(f"{beta:g}" for beta in betas))
        yield "spec.train.optimizer.betas", f"expected two numbers, each at least 0 and less than 1, found [{found}]"


def _durations(job: TrainJob) -> Iterator[Finding]:
    spec = job.spec
    texts = {
        "spec.scheduling.activeDeadline": spec.scheduling.active_deadline,
        "spec.recovery.replacementWait": spec.recovery.replacement_wait,
    }
    for path, text in texts.items():
        if text:
            yield from duration(path, text, positive=path == "spec.scheduling.activeDeadline")
    yield from duration("spec.recovery.maxRestarts.window", spec.recovery.max_restarts.window, positive=True)


def _intervals(job: TrainJob) -> Iterator[Finding]:
    checkpoint = job.spec.checkpoint
    yield from _interval("spec.checkpoint.interval", checkpoint.interval)
    yield from _interval("spec.checkpoint.snapshots.interval", checkpoint.snapshots.interval)


def _interval(path: str, text: str) -> Iterator[Finding]:
    if not text or text == AUTO:
        return
    if any(duration(path, text)):
        found = f'found "{shortened(text)}"{look_alikes(text)}'
        yield path, f"expected {AUTO}, or a duration such as 90s, 10m or 2h, {found}"
    else:
        yield from duration(path, text, positive=True)


def _nodes(job: TrainJob) -> Iterator[Finding]:
    nodes, resources = job.spec.nodes, job.spec.resources
    yield from _at_least("spec.nodes.min", nodes.min, 1)
    yield from _at_least("spec.nodes.max", nodes.max, 1)
    if nodes.min > nodes.max >= 1:
        yield "spec.nodes.min", f"{nodes.min} is greater than spec.nodes.max ({nodes.max})"
    if nodes.target and nodes.min <= nodes.max and not nodes.min <= nodes.target <= nodes.max:
        yield (
            "spec.nodes.target",
            f"expected {nodes.min} to {nodes.max} (spec.nodes.min to max), or 0 for max, found {nodes.target}",
        )
    if resources.accelerators_per_node > 0 and resources.accelerators_per_node != resources.workers_per_node:
        yield (
            "spec.resources.acceleratorsPerNode",
            f"expected 0 (CPU) or workersPerNode ({resources.workers_per_node}), "
            f"found {resources.accelerators_per_node}: each worker uses one accelerator",
        )


def _world_size(job: TrainJob) -> Iterator[Finding]:
    """Every worker needs a micro-batch of its own, at the largest size that the job may have."""
    nodes, per_node = job.spec.nodes, job.spec.resources.workers_per_node
    micro_batches = job.spec.train.batch.micro_batches
    world = nodes.max * per_node
    if job.spec.command or nodes.max < 1 or per_node < 1 or micro_batches < 1 or world <= micro_batches:
        return
    legal = micro_batches // per_node
    sizes = f"with workersPerNode {per_node} spec.nodes.max may be 1 to {legal}, or"
    if not legal:
        sizes = f"no size is legal with spec.resources.workersPerNode {per_node};"
    nodes_of = f"{nodes.max} {'nodes' if nodes.max > 1 else 'node'} of {per_node}"
    yield (
        "spec.train.batch.microBatches",
        f"{micro_batches} micro-batches cannot be dealt to {world} workers ({nodes_of}): each worker needs at "
        f"least one; {sizes} raise microBatches to {world} or more",
    )


def _batch(job: TrainJob) -> Iterator[Finding]:
    batch = job.spec.train.batch
    if batch.micro_batches >= 1 and batch.sequences >= 1 and batch.sequences % batch.micro_batches:
        near = sorted(sorted(_divisors(batch.sequences), key=lambda d: abs(d - batch.micro_batches))[:4])
        yield (
            "spec.train.batch.sequences",
            f"{batch.sequences} sequences cannot be split evenly into {batch.micro_batches} micro-batches; "
            f"microBatches that fit: {', '.join(map(str, near))}",
        )


def _divisors(number: int) -> set[int]:
    small = [d for d in range(1, math.isqrt(number) + 1) if number % d == 0]
    return {*small, *(number // d for d in small)}


def _model(job: TrainJob) -> Iterator[Finding]:
    for problem in task_problems(job.spec.train):
        yield problem.path, problem.message


def _optimizer(job: TrainJob) -> Iterator[Finding]:
    for problem in optimizer_problems(job.spec.train.optimizer):
        yield problem.path, problem.message


def _data(job: TrainJob) -> Iterator[Finding]:
    train = job.spec.train
    for problem in (*data_problems(train.data), *tokenizer_problems(train.tokenizer)):
        yield problem.path, problem.message


def _results(job: TrainJob) -> Iterator[Finding]:
    results = job.spec.results
    yield from one_of("spec.results.wandb.mode", results.wandb.mode, "offline", "online")
    for index, hook in enumerate(results.hooks):
        if not is_import_path(hook):
            yield (
                f"spec.results.hooks[{index}]",
                f'expected module:Class, such as my_project.hooks:Notify, found "{shortened(hook)}"',
            )


RULES: tuple[Callable[[TrainJob], Iterator[Finding]], ...] = (
    _header,
    _enumerations,
    _places,
    _numbers,
    _betas,
    _durations,
    _intervals,
    _nodes,
    _world_size,
    _batch,
    _model,
    _optimizer,
    _data,
    _results,
    command_rules,
    secret_rules,
)
"""All rules, each over the whole job; each yields what it finds."""
