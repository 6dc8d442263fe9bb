"""Checkpoints without a controller, for any script: plain modules, DDP, FSDP2, and state cut in any other way.

::

    from trainctl.checkpoint.library import load, save

    save("runs/first", model=model, optimizers=[optimizer], step=100, objects={"epoch": 3})
    found = load("runs/first", model=model, optimizers=[optimizer])     # the newest; found.step, found.objects
    load("runs/first/step-000000000100", model=model)                   # parameters and buffers alone

    with Checkpointer("runs/first", keep=3) as checkpointer:
        pending = checkpointer.async_save(model=model, optimizers=[optimizer], step=100)     # training goes on

Called by all ranks of a ``torch.distributed`` process group, or by one process where there is none. What one number of
ranks has saved, another loads. Checkpoints of trainctl's jobs can be loaded, too.
"""

from trainctl.checkpoint.library.checkpointer import Checkpointer
from trainctl.checkpoint.library.generators import generator_states, restore_generators
from trainctl.checkpoint.library.modules import load, save
from trainctl.checkpoint.library.pending import PendingSave
from trainctl.checkpoint.library.tensors import Loaded, load_state, save_state

__all__ = [
    "Checkpointer",
    "Loaded",
    "PendingSave",
    "generator_states",
    "load",
    "load_state",
    "restore_generators",
    "save",
    "save_state",
]
