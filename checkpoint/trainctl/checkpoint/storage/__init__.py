"""Where checkpoints lie: one port, with a fast path for local folders and fsspec for everything else."""
