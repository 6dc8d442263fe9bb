"""Which controller to talk to, as whom, and the calls to it."""
