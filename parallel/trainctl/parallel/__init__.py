"""Training: the session and its step protocol, collectives, models, data; ``plan`` is the pure part."""
