"""``spec.command`` in launch mode ``torchrun``: a worker that is the parent of the user's own program."""
