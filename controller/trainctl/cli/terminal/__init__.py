"""What a command shows: the streams, text, colours, times and progress."""
