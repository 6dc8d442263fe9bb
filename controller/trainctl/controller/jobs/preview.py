"""What a submission would start, in sentences. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from trainctl.controller.domain.command import command_sentences
from trainctl.controller.domain.explain import how_often, how_often_in_memory
from trainctl.controller.domain.placement import place_groups, usable_agents
from trainctl.controller.domain.view import ClusterView
from trainctl.core.import_paths import is_import_path
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.records.spec import TrainJob
from trainctl.core.records.train_spec import TrainSpec
from trainctl.core.timeouts import Timeouts
from trainctl.core.units import format_count, format_duration
from trainctl.parallel.plan.data_rules import likely_vocabulary
from trainctl.parallel.plan.micro_batches import deal
from trainctl.parallel.plan.model_size import llama_parameters
from trainctl.parallel.plan.task_rules import HF_CAUSAL_LM, LLAMA


def preview(
    job: TrainJob, view: ClusterView, free: Mapping[int, int], *, workdir: str, resume: CheckpointRef | None
) -> list[str]:
    """Placement, ranks and their micro-batches, size of the model, checkpoints, time-outs.

    Args:
        job: effective spec.
        view: agents as they are now.
        free: free slots by agent incarnation.
        workdir: where the job would keep its things.
        resume: checkpoint it would start from.
    """
    spec = job.spec
    train = spec.train
    if spec.runs_command:
        return [
            f"job {job.metadata.name}: a command on {nodes_of(job)}",
            _placement(job, view, free),
            *command_sentences(job),
            _timeouts(Timeouts.for_job(job), spec.recovery.profile),
        ]
    if spec.command:
        return [
            f"job {job.metadata.name}: {' '.join(spec.command)} with a session, on {nodes_of(job)}",
            _placement(job, view, free),
            _checkpoints(job, workdir),
            _timeouts(Timeouts.for_job(job), spec.recovery.profile),
        ]
    start = f"checkpoint {resume.uri} (step {resume.step})" if resume else "step 0"
    return [
        f"job {job.metadata.name}: task {train.task}, {format_count(train.steps, 'step')} from {start}",
        _placement(job, view, free),
        *_ranks(job),
        *_model(train),
        _checkpoints(job, workdir),
        _timeouts(Timeouts.for_job(job), spec.recovery.profile),
    ]


def _model(train: TrainSpec) -> list[str]:
    """The model, and what only the workers can check."""
    model, unchecked = train.model, [f"{path}, code of your own" for path in _own(train)]
    lines: list[str] = []
    if train.task == LLAMA:
        lines.append(f"model: about {llama_parameters(model, likely_vocabulary(train.tokenizer)):,} parameters")
    elif train.task == HF_CAUSAL_LM:
        lines.append(f"model: the causal language model of {model.path}, weights: {model.weights}")
        unchecked.append("whether transformers can build the model")
    if train.compile:
        unchecked.append("whether torch.compile takes the model")
    return [*lines, *(f"not checked here, but in the workers before the first step: {what}" for what in unchecked)]


def _own(train: TrainSpec) -> list[str]:
    return [path for path in (train.task, train.optimizer.name) if is_import_path(path)]


def nodes_of(job: TrainJob) -> str:
    """Nodes and ranks that a job begins with."""
    nodes, per_node = job.spec.nodes, job.spec.resources.workers_per_node
    first = f"{format_count(nodes.target, 'node')} with {format_count(per_node, 'rank')} each"
    return f"{first}, {nodes.min} to {format_count(nodes.max, 'node')} later"


def _placement(job: TrainJob, view: ClusterView, free: Mapping[int, int]) -> str:
    nodes, resources = job.spec.nodes, job.spec.resources
    timeouts = Timeouts.for_job(job).at_pace(view.heartbeat_s)
    agents = usable_agents(view.agents, free, resources=resources, timeouts=timeouts)
    placed = place_groups(range(nodes.target), agents, at_least=nodes.target, resources=resources)
    if placed.agents:
        return f"placement now: {placed.reason}"
    return f"placement: it would wait in QUEUED: {placed.reason}"


def _ranks(job: TrainJob) -> list[str]:
    nodes, per_node = job.spec.nodes, job.spec.resources.workers_per_node
    batch = job.spec.train.batch
    sizes = dict.fromkeys((nodes.target * per_node, nodes.min * per_node))
    lines: list[str] = []
    for world_size in sizes:
        counts = [len(part) for part in deal(batch.micro_batches, world_size)]
        each = str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"
        lines.append(
            f"{format_count(world_size, 'rank')}: {each} of {batch.micro_batches} micro-batches each, "
            f"{batch.sequences} sequences in a global batch"
        )
    return lines


def _checkpoints(job: TrainJob, workdir: str) -> str:
    checkpoint = job.spec.checkpoint
    uri = checkpoint.uri or f"{workdir}/checkpoints"
    snapshots = how_often_in_memory(checkpoint.snapshots)
    where = "on the local disks" if checkpoint.snapshots.on_disk else "in the memory"
    memory = f"; snapshots {snapshots}, {where} of the nodes" if snapshots else ""
    return f"checkpoints: {how_often(checkpoint)} to {uri}, the newest {checkpoint.keep.last} are kept{memory}"


def _timeouts(timeouts: Timeouts, profile: str) -> str:
    return (
        f"recovery profile {profile}: an agent is lost after {format_duration(timeouts.lost_s)} of silence, a worker "
        f"is frozen after {format_duration(timeouts.hang_floor_s)} (or 3 steps) without a sign of life, a replacement "
        f"is waited for {format_duration(timeouts.replacement_wait_s)}"
    )
