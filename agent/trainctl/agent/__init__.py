"""The agent: one process a node, parent of its workers, one stream to the controller."""
