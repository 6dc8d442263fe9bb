"""Reconcile: the pure heart of the controller. ``island.py`` shows the order of a pass."""

from trainctl.controller.domain.reconcile.inputs import (
    observe_checkpoint,
    observe_figures,
    observe_recovery,
    request_cancel,
)
from trainctl.controller.domain.reconcile.island import reconcile
from trainctl.controller.domain.reconcile.result import IdSource, Reconciliation

__all__ = [
    "IdSource",
    "Reconciliation",
    "observe_checkpoint",
    "observe_figures",
    "observe_recovery",
    "reconcile",
    "request_cancel",
]
