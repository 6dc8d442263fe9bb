"""The agent's certificate: how it gets one, keeps it fresh, and calls with it."""
