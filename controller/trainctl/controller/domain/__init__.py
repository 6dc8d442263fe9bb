"""The pure core of the controller: job spec, state tables, placement, recovery, reconcile. No IO, no clock."""
