"""The ``trainctl`` command: what people type. Nothing heavy is imported before a command needs it."""
