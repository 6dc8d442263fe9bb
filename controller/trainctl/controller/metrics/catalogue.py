"""Every metric of the controller: name, kind, help, labels. docs/reference/metrics.md is made from this list.

Base units; labels stay few (``job_name``, ``controller``, closed sets of words), never a rank, a pod, or a word that
Prometheus uses itself. What was not measured is absent, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trainctl.controller.domain.checkpoint_figures import STAGE_BUCKETS_S


class Kind(StrEnum):
    """Prometheus type."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric; histograms may have their own buckets (seconds)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


RECOVERY_BUCKETS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
STEP_BUCKETS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
FAST_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)

_JOB = ("job_name",)
STAGE_HISTOGRAM = Metric(
    name="trainctl_job_checkpoint_stage_seconds",
    kind=Kind.HISTOGRAM,
    help="Seconds of one rank in one stage of one save or load, over all ranks and checkpoints of the job's life.",
    labels=("job_name", "direction", "stage"),
    buckets=STAGE_BUCKETS_S,
)

JOB_METRICS = (
    Metric(
        name="trainctl_job_phase", kind=Kind.GAUGE, help="1 for the phase the job is in.", labels=("job_name", "phase")
    ),
    Metric(
        name="trainctl_job_time_seconds_total",
        kind=Kind.COUNTER,
        help="Seconds of the job's life by goodput bucket; first executions only count as productive.",
        labels=("job_name", "bucket"),
    ),
    Metric(
        name="trainctl_job_lost_seconds_total",
        kind=Kind.COUNTER,
        help="Productive seconds that roll-backs threw away.",
        labels=_JOB,
    ),
    Metric(name="trainctl_job_step", kind=Kind.GAUGE, help="Newest committed step.", labels=_JOB),
    Metric(
        name="trainctl_job_loss",
        kind=Kind.GAUGE,
        help="Training loss of the newest step that was not skipped, nats per token.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_skipped_steps",
        kind=Kind.GAUGE,
        help="Steps so far whose gradient was thrown away.",
        labels=_JOB,
    ),
    Metric(name="trainctl_job_eval_loss", kind=Kind.GAUGE, help="Newest eval loss, nats per token.", labels=_JOB),
    Metric(name="trainctl_job_tokens_total", kind=Kind.COUNTER, help="Tokens trained on.", labels=_JOB),
    Metric(
        name="trainctl_job_samples_total",
        kind=Kind.COUNTER,
        help="Samples by outcome; every one is committed exactly once in the surviving lineage.",
        labels=("job_name", "outcome"),
    ),
    Metric(
        name="trainctl_job_generation", kind=Kind.GAUGE, help="Generation of the island.", labels=("job_name", "island")
    ),
    Metric(name="trainctl_job_lineage", kind=Kind.GAUGE, help="Lineage; rises with each roll-back.", labels=_JOB),
    Metric(
        name="trainctl_job_recoveries_total",
        kind=Kind.COUNTER,
        help="Recoveries that a fault caused; planned changes do not count.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_restarts_total",
        kind=Kind.COUNTER,
        help="Workers replaced, by the class of the fault.",
        labels=("job_name", "class"),
    ),
    Metric(
        name="trainctl_job_uptime_seconds",
        kind=Kind.GAUGE,
        help="Seconds that all workers have run since the last start or restart; absent while they do not.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_members",
        kind=Kind.GAUGE,
        help="Worker slots by state.",
        labels=("job_name", "state"),
    ),
    Metric(
        name="trainctl_job_checkpoint_step",
        kind=Kind.GAUGE,
        help="Step of the newest committed checkpoint.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_age_seconds",
        kind=Kind.GAUGE,
        help="Seconds since the newest checkpoint was committed, or up to the job's end: what losing all would cost.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_interval_seconds",
        kind=Kind.GAUGE,
        help="Seconds between two checkpoints, of a job that saves by time.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_waste_ratio",
        kind=Kind.GAUGE,
        help="Predicted share of the time that goes into checkpoints, into what failures undo and into recoveries.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_timestamp_seconds",
        kind=Kind.GAUGE,
        help="When the newest checkpoint was committed, Unix seconds.",
        labels=_JOB,
    ),
    STAGE_HISTOGRAM,
    Metric(
        name="trainctl_job_checkpoint_newest_stage_seconds",
        kind=Kind.GAUGE,
        help="Seconds of a rank in a stage of the newest save or load: quantiles over ranks; 1 is the slowest rank.",
        labels=("job_name", "direction", "stage", "quantile"),
    ),
    Metric(
        name="trainctl_job_checkpoint_bytes_total",
        kind=Kind.COUNTER,
        help="Bytes of committed saves, and bytes read by loads, by the kind of storage.",
        labels=("job_name", "direction", "storage"),
    ),
    Metric(
        name="trainctl_job_checkpoint_failures_total",
        kind=Kind.COUNTER,
        help="Saves that failed, by cause.",
        labels=("job_name", "cause"),
    ),
    Metric(
        name="trainctl_job_checkpoint_verify_failures_total",
        kind=Kind.COUNTER,
        help="Checkpoints that were refused: whoever loaded them found wrong bytes, or files missing or cut off.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_healed_reads_total",
        kind=Kind.COUNTER,
        help="Blocks and manifests that loads received with wrong bytes, and right when they read them again.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_imbalance_ratio",
        kind=Kind.GAUGE,
        help="Largest part of the newest save against the mean of all ranks, in bytes: 1 is even.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_read_amplification_ratio",
        kind=Kind.GAUGE,
        help="Bytes that the newest load read for each byte that a rank wanted; below 1 where ranks passed some on.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_checkpoint_pool_bytes",
        kind=Kind.GAUGE,
        help="Bytes of host memory kept for copies of the state at the newest save, on the rank where it is most.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_snapshot_step",
        kind=Kind.GAUGE,
        help="Step of the newest snapshot that the nodes hold; absent while there is none.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_snapshot_age_seconds",
        kind=Kind.GAUGE,
        help="Seconds since all nodes completed the newest snapshot; absent while there is none.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_snapshot_bytes",
        kind=Kind.GAUGE,
        help="Bytes of the newest snapshot on all nodes together, copies included; absent while there is none.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_snapshot_uncopied_parts",
        kind=Kind.GAUGE,
        help="Parts of the newest snapshot that a single node has, with which it is lost; absent while there is none.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_snapshot_interval_seconds",
        kind=Kind.GAUGE,
        help="Seconds between two snapshots, of a job that makes them by time.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_snapshot_waste_ratio",
        kind=Kind.GAUGE,
        help="Predicted share of the time that goes into snapshots, into what failures undo and into recoveries.",
        labels=_JOB,
    ),
    Metric(
        name="trainctl_job_snapshots_total",
        kind=Kind.COUNTER,
        help="Snapshots by how they ended: made, no_room, or the cause of another failure.",
        labels=("job_name", "outcome"),
    ),
    Metric(
        name="trainctl_job_checkpoints_in_flight",
        kind=Kind.GAUGE,
        help="Saves that are begun and not over, as workers report them; absent while the job does not run.",
        labels=_JOB,
    ),
)

CONTROLLER_METRICS = (
    Metric(
        name="trainctl_job_step_seconds",
        kind=Kind.HISTOGRAM,
        help="Seconds from one committed step to the next.",
        labels=_JOB,
        buckets=STEP_BUCKETS_S,
    ),
    Metric(
        name="trainctl_recovery_seconds",
        kind=Kind.HISTOGRAM,
        help="Seconds of a recovery by phase; total runs from the fault to the first new committed step.",
        labels=("phase",),
        buckets=RECOVERY_BUCKETS_S,
    ),
    Metric(
        name="trainctl_faults_total",
        kind=Kind.COUNTER,
        help="Faults by the event that told of them.",
        labels=("type",),
    ),
    Metric(name="trainctl_leader", kind=Kind.GAUGE, help="1 while this controller leads.", labels=("controller",)),
    Metric(
        name="trainctl_leader_epoch", kind=Kind.GAUGE, help="Fencing epoch of this controller.", labels=("controller",)
    ),
    Metric(
        name="trainctl_reconcile_seconds",
        kind=Kind.HISTOGRAM,
        help="Seconds of one pass of the reconciler over one job.",
        buckets=FAST_BUCKETS_S,
    ),
    Metric(name="trainctl_reconcile_queue_depth", kind=Kind.GAUGE, help="Jobs waiting for a pass of the reconciler."),
    Metric(
        name="trainctl_reconcile_errors_total",
        kind=Kind.COUNTER,
        help="Passes of the reconciler that raised; each is a bug.",
    ),
    Metric(
        name="trainctl_fenced_writes_total",
        kind=Kind.COUNTER,
        help="Writes to the state store refused because another controller leads.",
    ),
    Metric(
        name="trainctl_cas_conflicts_total",
        kind=Kind.COUNTER,
        help="Writes to the state store refused because a revision moved.",
    ),
    Metric(
        name="trainctl_event_loop_lag_seconds",
        kind=Kind.GAUGE,
        help="Seconds by which the event loop woke up late, the last time.",
    ),
    Metric(
        name="trainctl_refused_calls_total",
        kind=Kind.COUNTER,
        help="Calls refused because the caller is unknown or lacks the role.",
        labels=("reason",),
    ),
    Metric(
        name="trainctl_limited_calls_total",
        kind=Kind.COUNTER,
        help="Calls refused as too many: of a caller, of a host without a good token, or new sessions of agents.",
        labels=("limit",),
    ),
    Metric(
        name="trainctl_audit_records_total",
        kind=Kind.COUNTER,
        help="Audit records: begun, done, left_out because too many came, not_stored because the store is full.",
        labels=("state",),
    ),
    Metric(name="trainctl_agent_sessions", kind=Kind.GAUGE, help="Open sessions of agents."),
    Metric(
        name="trainctl_refused_reports_total",
        kind=Kind.COUNTER,
        help="Reports of agents refused because they have no part in the job.",
    ),
    Metric(name="trainctl_heartbeats_total", kind=Kind.COUNTER, help="Heartbeats received from agents."),
    Metric(
        name="trainctl_store_request_seconds",
        kind=Kind.HISTOGRAM,
        help="Seconds of one call of the state store.",
        labels=("op",),
        buckets=FAST_BUCKETS_S,
    ),
    Metric(name="trainctl_store_db_bytes", kind=Kind.GAUGE, help="Bytes that the state store occupies."),
    Metric(name="trainctl_intents_pending", kind=Kind.GAUGE, help="Side effects written down and not yet done."),
    Metric(name="trainctl_build_info", kind=Kind.GAUGE, help="1; the version is a label.", labels=("version",)),
    Metric(
        name="grpc_server_handled_total",
        kind=Kind.COUNTER,
        help="Finished calls by method and status.",
        labels=("grpc_service", "grpc_method", "grpc_code"),
    ),
    Metric(
        name="grpc_server_handling_seconds",
        kind=Kind.HISTOGRAM,
        help="Seconds of finished unary calls.",
        labels=("grpc_service", "grpc_method"),
        buckets=FAST_BUCKETS_S,
    ),
)
