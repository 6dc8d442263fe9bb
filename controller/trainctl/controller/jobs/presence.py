"""Which of a job's checkpoints are still where they were committed. Blocks on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable

from trainctl.checkpoint.manifest.names import ROOT_MANIFEST
from trainctl.core.records.generation import CheckpointRef
from trainctl.core.uris import local_path


def missing_checkpoints(refs: Iterable[CheckpointRef]) -> list[str]:
    """URIs of those that somebody removed. Only paths are looked at: elsewhere a look may cost time and money."""
    paths = ((ref.uri, local_path(ref.uri)) for ref in refs)
    return [uri for uri, path in paths if path is not None and not os.path.isfile(f"{path}/{ROOT_MANIFEST}")]
