"""The job spec as data: what a user may write, with every default. Parsing and checking live in controller.domain.spec.

The YAML spelling of a field is its lowerCamel form (``core.codec.camel``). Durations are strings such as ``30s`` or
``5m`` (``core.units.parse_duration_s``), so that a unit is never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainctl.core.records.train_spec import TrainSpec

API_VERSION = "trainctl.dev/v1"
KIND = "TrainJob"
TORCHRUN = "torchrun"
SESSION = "session"
NOTHING = "none"
LOG = "log"
HEARTBEAT = "heartbeat"
AUTO = "auto"
MEMORY, DISK = "memory", "disk"
"""Where snapshots lie on a node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobMetadata:
    """Which job it is.

    Attributes:
        name: a DNS label, unique among the unfinished jobs of the tenant.
        tenant: whose job it is: a DNS label (docs/howto/access.md).
        labels: free names and values, to choose jobs by.
    """

    name: str
    tenant: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


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
    """Elastic bounds in nodes.

    Attributes:
        min: fewest nodes that the job goes on with.
        max: most nodes.
        target: nodes that it starts with and grows back to; 0: ``max``.
    """

    min: int = 1
    max: int = 1
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulingSpec:
    """When it runs.

    Attributes:
        queue: name of the queue that it waits in.
        priority: of jobs that wait, higher goes first.
        active_deadline: wall time without PAUSED after which the job is failed; empty: never.
    """

    queue: str = "default"
    priority: int = 0
    active_deadline: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelismSpec:
    """How the work is split.

    Attributes:
        strategy: ``auto`` or ``data``: this version runs one data-parallel island.
    """

    strategy: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSpec:
    """How workers come to the same weights.

    Attributes:
        mode: ``allreduce``: synchronous data parallelism in one island.
    """

    mode: str = "allreduce"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointKeepSpec:
    """Retention.

    Attributes:
        last: so many of the newest committed checkpoints stay. With 1, the one before goes when every byte of the
            newest was read back.
    """

    last: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotsSpec:
    """Copies of the state on the nodes themselves: of what is lost, they repeat less than checkpoints do.

    Attributes:
        interval_steps: steps between snapshots; 0 keeps none. With ``interval`` it counts only where nobody says how
            long that is: for agents of an older version.
        interval: time between snapshots instead of steps: ``auto``, from what a snapshot costs and how often the job
            fails, or a duration; empty: ``interval_steps`` counts.
        place: ``memory`` of the nodes, which is fastest; or ``disk``, their local ones, which outlive agents and
            machines and have more room.
    """

    interval_steps: int = 0
    interval: str = ""
    place: str = MEMORY

    @property
    def on_disk(self) -> bool:
        """Whether they lie on disks, not in memory."""
        return self.place == DISK

    @property
    def wanted(self) -> bool:
        """Whether the job makes snapshots at all."""
        return self.interval_steps > 0 or bool(self.interval)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSpec:
    """Where and how often to save.

    Attributes:
        uri: folder that fsspec opens; empty: under the job's work folder.
        interval_steps: steps between checkpoints; 0 saves only the last step. With ``interval`` it counts only where
            nobody says how long that is: for a program on its own, and for agents of an older version.
        interval: time between checkpoints instead of steps: ``auto``, from what a checkpoint costs and how often the
            job fails, or a duration; empty: ``interval_steps`` counts.
        keep: retention.
        resume_from: ``none``, ``latest`` (newest under ``uri``) or the URI of one checkpoint.
        background: copied and written while training goes on, which takes memory for two copies of a worker's share of
            the state; otherwise training waits.
        layout: ``chunked``, or ``hf``: parameters and buffers lie in safetensors files with whole tensors, which
            transformers loads as they are; it takes a folder on disk.
        snapshots: copies in the memory of the nodes, beside the checkpoints.
    """

    uri: str = ""
    interval_steps: int = 100
    interval: str = ""
    keep: CheckpointKeepSpec = CheckpointKeepSpec()
    resume_from: str = "none"
    background: bool = True
    layout: str = "chunked"
    snapshots: SnapshotsSpec = SnapshotsSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataLedgerSpec:
    """Which samples count.

    Attributes:
        ledger: ``exact``: every sample counts once in the surviving lineage; the only mode of this version.
    """

    ledger: str = "exact"


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxRestartsSpec:
    """Restart budgets: what is over them fails the job.

    Attributes:
        user: exceptions of the user's code, or exit codes of a command, in the job's life.
        process: crashes of processes and nodes within ``window``.
        window: sliding time that ``process`` counts in.
    """

    user: int = 1
    process: int = 20
    window: str = "30m"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoverySpec:
    """How failures are met.

    Attributes:
        profile: ``fast``, ``balanced`` or ``patient``; derives every time-out (docs/reference/timeouts.md).
        replacement_wait: how long to wait for a lost worker's replacement before shrinking; empty: the profile's.
        allow_approximate: permits the lossy rung (neighbour averaging).
        max_restarts: budgets.
    """

    profile: str = "balanced"
    replacement_wait: str = ""
    allow_approximate: bool = False
    max_restarts: MaxRestartsSpec = MaxRestartsSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class HangSpec:
    """How a command shows that it goes on.

    Attributes:
        watch: ``none``, ``log`` (some rank prints something) or ``heartbeat`` (every rank touches the file that the
            environment variable ``TRAINCTL_HEARTBEAT_FILE`` names).
        after: silence of this length is a hang: all ranks are started again. Until its first sign of life a rank has
            the profile's ``boot_s`` if that is longer.
    """

    watch: str = NOTHING
    after: str = "10m"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """How ``spec.command`` is started.

    Attributes:
        mode: ``torchrun`` (any script; RANK, WORLD_SIZE, MASTER_ADDR, ... in the environment; all ranks start again
            after a failure) or ``session`` (the script opens a ``trainctl.parallel.session.Session``).
        workdir: folder that the command runs in; empty: a folder of the job's own on the node.
        hang: of a ``torchrun`` command.
    """

    mode: str = TORCHRUN
    workdir: str = ""
    hang: HangSpec = HangSpec()


@dataclass(frozen=True, slots=True, kw_only=True)
class WandbSpec:
    """Weights & Biases; an empty ``project`` leaves it off.

    Attributes:
        project: project that the run belongs to.
        mode: ``offline`` (files under the job's records, for ``wandb sync``) or ``online``.
    """

    project: str = ""
    mode: str = "offline"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsSpec:
    """What is kept of a run beside the controller: its records.

    Attributes:
        jsonl: ``steps.jsonl``, one line a step.
        tensorboard: event files in ``tensorboard/``.
        wandb: Weights & Biases.
        hooks: own hooks as ``module:Class``, see ``trainctl.parallel.results.hook``.
        logs: keep what the workers printed in ``logs/``, also when the agents are gone.
        uri: folder that fsspec opens; the job's records go to ``<uri>/<job uid>/records``; empty: to ``records/`` of
            the job's work folder.
    """

    jsonl: bool = True
    tensorboard: bool = False
    wandb: WandbSpec = WandbSpec()
    hooks: tuple[str, ...] = ()
    logs: bool = True
    uri: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """Everything under ``spec:``: either ``train``, the built-in loop, or ``command``, a program of the user's own.

    Attributes:
        train: what the built-in loop trains.
        image: only matters on Kubernetes.
        command: program and arguments, run by every worker instead of the built-in loop.
        launch: how the command is started.
        env: environment of the workers. Relative folders in ``PYTHONPATH`` are seen from where ``submit`` is called.
        secret_env: names of variables whose values the agents read from their own files (docs/howto/secrets.md).
        resources: what each node contributes.
        nodes: elastic bounds.
        scheduling: queue, priority, deadline.
        parallelism: how the work is split.
        sync: how islands synchronise.
        checkpoint: where and how often to save.
        data: the ledger of samples.
        recovery: how failures are met.
        results: where figures and logs go.
    """

    train: TrainSpec = TrainSpec()
    image: str = ""
    command: tuple[str, ...] = ()
    launch: LaunchSpec = LaunchSpec()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    secret_env: tuple[str, ...] = ()
    resources: ResourcesSpec = ResourcesSpec()
    nodes: NodesSpec = NodesSpec()
    scheduling: SchedulingSpec = SchedulingSpec()
    parallelism: ParallelismSpec = ParallelismSpec()
    sync: SyncSpec = SyncSpec()
    checkpoint: CheckpointSpec = CheckpointSpec()
    data: DataLedgerSpec = DataLedgerSpec()
    recovery: RecoverySpec = RecoverySpec()
    results: ResultsSpec = ResultsSpec()

    @property
    def runs_command(self) -> bool:
        """Whether the job is a program that keeps its state itself: no steps, figures or checkpoints of ours."""
        return bool(self.command) and self.launch.mode == TORCHRUN


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainJob:
    """A whole job file.

    Attributes:
        metadata: which job it is.
        spec: what it does.
        api_version: of the job file's form.
        kind: of file; there is only this one.
    """

    metadata: JobMetadata
    spec: JobSpec = JobSpec()
    api_version: str = API_VERSION
    kind: str = KIND
