"""Checkpoints in folders that a person names, as the commands see them."""
