"""Jobs in the shell: persisting what the core decided, telling those who watch, checking what is submitted."""
