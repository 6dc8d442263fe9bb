"""Collectives that a training thread polls and can walk away from."""
