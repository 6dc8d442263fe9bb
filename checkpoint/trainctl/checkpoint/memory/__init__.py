"""Snapshots in the memory of nodes: checkpoints of a job whose parts are spread over the nodes that made them."""
