"""Loading: what a rank wants found in the files, read once, verified, and brought into live tensors."""
