"""Checkpoints: the layout algebra (pure) and the engine that saves, loads and exports with it."""
