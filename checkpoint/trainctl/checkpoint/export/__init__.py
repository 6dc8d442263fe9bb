"""From a checkpoint to a Hugging Face folder. Needs numpy, but no torch."""

from __future__ import annotations

from trainctl.checkpoint.export.hf import ExportReport, export_checkpoint

__all__ = ["ExportReport", "export_checkpoint"]
