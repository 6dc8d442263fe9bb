"""The wire: one schema (``v1/*.proto``) and the stubs generated from it."""
