"""What a command shows: text, colours, progress, and documents for machines."""
