"""Saving: what each rank writes, and the manifest that makes a checkpoint of it."""
