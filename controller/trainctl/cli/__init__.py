"""The ``trainctl`` command."""
