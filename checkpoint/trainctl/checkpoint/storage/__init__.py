"""Where checkpoints and records lie: one port, a fast path for local folders, and fsspec for everything else."""
