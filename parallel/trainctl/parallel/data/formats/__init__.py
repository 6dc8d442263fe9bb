"""How files become records: one reader a format, each with random access by position."""
