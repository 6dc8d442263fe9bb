"""The command line as it may be typed. No command is imported here."""
