"""The step protocol as a library: wrap a training loop in a ``Session`` and it survives the loss of workers."""

from trainctl.parallel.plan.micro_batches import MicroBatch
from trainctl.parallel.session.session import Session
from trainctl.parallel.session.step_context import StepContext

__all__ = ["MicroBatch", "Session", "StepContext"]
