"""The state of a model and its optimizer while it lives, as tensors of the layout algebra. Needs torch."""
