"""Pure planning: who does which micro-batch, in which order samples are read, what a vote decides."""
