"""A job's spec without what nobody wrote: the fields that differ from their defaults. It is a job file again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainctl.cli.output import plain
from trainctl.core.plain import is_mapping
from trainctl.core.records.spec import JobMetadata, TrainJob
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1.records_pb2 import TrainJob as TrainJobMessage

_ALWAYS = ("apiVersion", "kind")
"""A job file has to have these."""


def without_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a job as ``plain`` makes it, less the fields that have their default."""
    default = plain(record_to_message(TrainJob(metadata=JobMetadata(name="")), TrainJobMessage))
    left = _differing(spec, default)
    return {key: spec[key] if key in _ALWAYS else left[key] for key in spec if key in _ALWAYS or key in left}


def _differing(value: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, item in value.items():
        usual = default.get(key)
        if is_mapping(item) and is_mapping(usual):
            if left := _differing(item, usual):
                found[key] = left
        elif key not in default or item != usual:
            found[key] = item
    return found
