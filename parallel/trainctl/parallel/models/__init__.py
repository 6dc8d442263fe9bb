"""Models that the built-in tasks train."""
