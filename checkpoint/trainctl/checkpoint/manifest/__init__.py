"""The manifests of TCF1, our checkpoint format: what was saved, where it lies, and how to see that it is intact."""
