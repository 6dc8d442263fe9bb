"""The job spec as data: what a user may write, with every default. Parsing and checking live in controller.domain.spec.

The YAML spelling of a field is its lowerCamel form (``core.codec.camel``). Durations are strings such as ``30s`` or
``5m`` (``core.units.parse_duration_s``), so that a unit is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

API_VERSION = "trainctl.dev/v1"
KIND = "TrainJob"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetadata:
    """Name (DNS label, unique among unfinished jobs of the tenant), tenant and free labels."""

    name: str
    tenant: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourcesSpec:
    """What each node contributes.

    Attributes:
        workers_per_node: worker processes (ranks) on each node.
        accelerator_type: only matters where nodes are labelled with one; empty takes any.
        accelerators_per_node: 0 is a CPU job; otherwise it must equal ``workers_per_node``.
        threads_per_worker: intra-op threads of a CPU worker; 0 divides the machine's cores among its workers.
    """

    workers_per_node: int = 1
    accelerator_type: str = ""
    accelerators_per_node: int = 0
    threads_per_worker: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class NodesSpec:
    """Elastic bounds in nodes: the job starts with ``target`` (0: ``max``), runs with at least ``min``."""

    min: int = 1
    max: int = 1
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingSpec:
    """Queue, priority (higher goes first) and the wall time after which the job is failed (empty: never)."""

    queue: str = "default"
    priority: int = 0
    active_deadline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelismSpec:
    """``auto`` or ``data``: this version runs one data-parallel island."""

    strategy: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSpec:
    """``allreduce``: synchronous data parallelism in one island."""

    mode: str = "allreduce"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointKeepSpec:
    """Retention: the newest ``last`` committed checkpoints stay."""

    last: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSpec:
    """Where and how often to save.

    Attributes:
        uri: folder that fsspec opens; empty: under the job's work folder.
        interval_steps: steps between checkpoints; 0 saves only the last step.
        keep: retention.
        resume_from: ``none``, ``latest`` (newest under ``uri``) or the URI of one checkpoint.
    """

    uri: str = ""
    interval_steps: int = 100
    keep: CheckpointKeepSpec = CheckpointKeepSpec()
    resume_from: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLedgerSpec:
    """``exact``: every sample counts once in the surviving lineage; the only mode of this version."""

    ledger: str = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxRestartsSpec:
    """Restart budgets: user exceptions per job; process crashes per ``window``."""

    user: int = 1
    process: int = 20
    window: str = "30m"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySpec:
    """How failures are met.

    Attributes:
        profile: ``fast``, ``balanced`` or ``patient``; derives every time-out (docs/reference/timeouts.md).
        replacement_wait: how long to wait for a lost worker's replacement before shrinking; empty: the profile's.
        allow_approximate: permits the lossy rung (neighbour averaging); not in this version's ladder yet.
        max_restarts: budgets.
    """

    profile: str = "balanced"
    replacement_wait: str = ""
    allow_approximate: bool = False
    max_restarts: MaxRestartsSpec = MaxRestartsSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Shape of the built-in decoder. ``kv_heads`` 0: as ``heads``; ``ffn`` 0: 8/3 of ``hidden``, rounded up to 64."""

    layers: int = 4
    hidden: int = 256
    heads: int = 4
    kv_heads: int = 0
    ffn: int = 0
    context: int = 256
    rope_theta: float = 10000.0
    dropout: float = 0.0
    tie_embeddings: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainDataSpec:
    """Text to train on.

    Attributes:
        uri: folder, file, glob or URL that fsspec opens; ``python-stdlib`` is the running Python's standard library.
        include: glob for file names inside a folder.
        hold_out_every: every n-th file (sorted by path) is kept for evaluation.
    """

    uri: str = "python-stdlib"
    include: str = "*"
    hold_out_every: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """``bytes`` (256 values) or ``bpe`` trained on the corpus with ``vocab_size`` entries."""

    kind: str = "bytes"
    vocab_size: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerSpec:
    """AdamW and the global-norm clip (0: no clipping)."""

    name: str = "adamw"
    lr: float = 3e-4
    betas: tuple[float, ...] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.1
    clip_norm: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleSpec:
    """``cosine`` or ``constant`` after a linear warm-up; cosine ends at ``min_lr_ratio`` of the peak."""

    kind: str = "cosine"
    warmup_steps: int = 20
    min_lr_ratio: float = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSpec:
    """Sequences in a global batch and the logical micro-batches they are dealt in; both independent of world size."""

    sequences: int = 16
    micro_batches: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalSpec:
    """Held-out evaluation every ``every`` steps (0: never) on ``sequences`` sequences."""

    every: int = 50
    sequences: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSpec:
    """What to train. ``precision``: auto, float32 or float64. ``steps`` is the number of optimizer steps."""

    task: str = "llama"
    model: ModelSpec = ModelSpec()
    data: TrainDataSpec = TrainDataSpec()
    tokenizer: TokenizerSpec = TokenizerSpec()
    optimizer: OptimizerSpec = OptimizerSpec()
    schedule: ScheduleSpec = ScheduleSpec()
    steps: int = 100
    batch: BatchSpec = BatchSpec()
    eval: EvalSpec = EvalSpec()
    seed: int = 0
    precision: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """Everything under ``spec:``. ``image`` only matters on Kubernetes."""

    train: TrainSpec = TrainSpec()
    image: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    resources: ResourcesSpec = ResourcesSpec()
    nodes: NodesSpec = NodesSpec()
    scheduling: SchedulingSpec = SchedulingSpec()
    parallelism: ParallelismSpec = ParallelismSpec()
    sync: SyncSpec = SyncSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    data: DataLedgerSpec = DataLedgerSpec()
    recovery: RecoverySpec = RecoverySpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """A whole job file."""

    metadata: JobMetadata
    spec: JobSpec = JobSpec()
    api_version: str = API_VERSION
    kind: str = KIND
