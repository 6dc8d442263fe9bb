"""Reconcile: the pure heart of the controller. ``island.py`` shows the order of a pass."""

from trainctl.controller.domain.reconcile.accepted import holds_checkpoint, refused_checkpoint, request_accept
from trainctl.controller.domain.reconcile.inputs import (
    observe_checkpoint,
    observe_figures,
    observe_recovery,
    request_cancel,
)
from trainctl.controller.domain.reconcile.island import reconcile
from trainctl.controller.domain.reconcile.keeping import (
    CheckpointNeededError,
    checkpoint_of,
    observe_checkpoint_removed,
    request_checkpoint_removal,
    request_pin,
)
from trainctl.controller.domain.reconcile.refusing import checkpoint_at, request_refuse
from trainctl.controller.domain.reconcile.result import IdSource, Reconciliation
from trainctl.controller.domain.reconcile.scale import request_delete, request_scale
from trainctl.controller.domain.reconcile.wishes import (
    IllegalTransitionError,
    lost_steps,
    request_pause,
    request_restart,
    request_resume,
    request_rollback,
    rollback_target,
)

__all__ = [
    "CheckpointNeededError",
    "IdSource",
    "IllegalTransitionError",
    "Reconciliation",
    "checkpoint_at",
    "checkpoint_of",
    "holds_checkpoint",
    "lost_steps",
    "observe_checkpoint",
    "observe_checkpoint_removed",
    "observe_figures",
    "observe_recovery",
    "reconcile",
    "refused_checkpoint",
    "request_accept",
    "request_cancel",
    "request_checkpoint_removal",
    "request_delete",
    "request_pause",
    "request_pin",
    "request_refuse",
    "request_restart",
    "request_resume",
    "request_rollback",
    "request_scale",
    "rollback_target",
]
