"""What lies under a checkpoint URI: found, looked at, kept, marked and removed."""
