"""Workers' output: captured from a pipe, kept in rotated files, served to whoever asks."""
