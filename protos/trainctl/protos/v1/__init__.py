"""Version 1 of the wire, package ``trainctl.v1``."""
