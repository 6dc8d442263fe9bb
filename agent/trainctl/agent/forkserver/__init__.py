"""The fork server: a small process with torch preloaded that forks the workers of an agent and is their parent.

Agents of one machine may have theirs forked from one that has everything preloaded already (``shared``). Nothing in
here but ``client`` and ``process`` is used by the agent; nothing imports grpc, so no child ever inherits its threads.
"""

PRELOAD = ("torch", "torch.distributed", "trainctl.parallel.worker")
"""What workers need, as long as nobody says otherwise."""
