"""Who may call, how often, and what is written down of it: tokens, limits, the audit log."""
