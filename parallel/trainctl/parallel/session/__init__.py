"""The step protocol as a library: wrap a training loop in a ``Session`` and it survives the loss of workers.

The names in ``__all__`` are public and stay as they are.
"""

from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.plan.micro_batches import MicroBatch
from trainctl.parallel.replica.training_state import Stateful, TrainingState
from trainctl.parallel.session.session import Session
from trainctl.parallel.session.step_context import StepContext

__all__ = ["BatchSpec", "MicroBatch", "Session", "Stateful", "StepContext", "TrainingState"]
