"""Consistent copies of the live state in host memory: what is saved, and what recovery may take."""
