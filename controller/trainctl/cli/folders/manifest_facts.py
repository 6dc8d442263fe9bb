"""What the root manifest of a checkpoint says, for machines, wherever it was found."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from trainctl.checkpoint.manifest.records import RootManifest


def facts(root: RootManifest) -> dict[str, Any]:
    """Of the checkpoint that it makes."""
    files = root.stored_files
    return {
        "job": root.job,
        "created": root.created,
        "epoch": root.epoch,
        "parent": asdict(root.parent) if root.parent is not None else None,
        "ancestors": list(root.ancestors),
        "layout": root.layout,
        "writers": len(root.parts),
        "tensors": root.tensors,
        "dataBytes": root.data_bytes,
        "sizeBytes": sum(file.size_bytes for file in files),
        "files": [{"path": file.path, "sizeBytes": file.size_bytes} for file in files],
        "parts": [
            {"rank": part.writer, "dataBytes": part.data_bytes, "seconds": dict(part.seconds)} for part in root.parts
        ],
    }
