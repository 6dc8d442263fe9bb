"""Curves of a run with its failures marked: in the terminal, and as a picture."""
