"""The config file with its contexts, and what becomes of flags, environment and file together."""
