"""From folders of torch DCP and Hugging Face safetensors to a checkpoint. Needs neither torch nor numpy."""

from __future__ import annotations

from trainctl.checkpoint.importing.convert import ImportReport, import_checkpoint
from trainctl.checkpoint.importing.naming import Naming

__all__ = ["ImportReport", "Naming", "import_checkpoint"]
