"""From a checkpoint to a Hugging Face folder. Needs numpy, but no torch."""
