"""``trainctl demo``: the main job on one machine, with failures, from nothing to generated text."""
