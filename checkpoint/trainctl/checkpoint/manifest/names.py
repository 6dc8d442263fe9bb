"""Names of folders, files and entries in a checkpoint.

::

    <root>/step-000000001200/<attempt>/manifest.json                 root manifest, written last: the commit
                                       parts/w00003.json             one per writer
                                       parts/contents.json           which part holds which ranges
                                       data/w00003-000.safetensors   tensors
                                       artifacts/config.json         files kept beside them
                                       pinned                        if there: somebody wants it kept
                                       damaged                       if there: it was found so, and is passed over

In layout ``hf``, parameters, buffers and artifacts lie as transformers expects them::

                                       model-00001-of-00002.safetensors
                                       model.safetensors.index.json
                                       config.json
"""

from __future__ import annotations

import hashlib
import re

from trainctl.checkpoint.layout.region import Box, Region, Shape, whole

ROOT_MANIFEST = "manifest.json"
PIN = "pinned"
CONTENTS = "parts/contents.json"
HF_INDEX = "model.safetensors.index.json"
DAMAGED = "damaged"
STEPS = 10**12
"""A step is less: its folder's name has twelve digits."""
_STEP = re.compile(r"step-(\d{12})")
_ATTEMPT = re.compile(r"[0-9a-f]{16}")
_LINEAGE_DIGITS = 4


def step_folder(step: int) -> str:
    """``step-000000001200``: sorts like the number."""
    return f"step-{step:012d}"


def step_of(folder: str) -> int | None:
    """The step of a folder made by ``step_folder``; None for any other name."""
    match = _STEP.fullmatch(folder)
    return int(match[1]) if match else None


def is_attempt(folder: str) -> bool:
    """Whether this is the name of an attempt's folder."""
    return _ATTEMPT.fullmatch(folder) is not None


def attempt_folder(step: int, attempt: str) -> str:
    """Path of an attempt under the root."""
    return f"{step_folder(step)}/{attempt}"


def attempt_id(*parts: object, lineage: int = 0) -> str:
    """A name that all ranks derive from what they share, such as job, island, generation nonce and step.

    It begins with the lineage, since an attempt that is not complete yet says nowhere else whose it is.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()
    return f"{min(lineage, 16**_LINEAGE_DIGITS - 1):0{_LINEAGE_DIGITS}x}{digest}"[:16]


def lineage_of(attempt: str) -> int:
    """The lineage in a name that ``attempt_id`` made; names that older versions made say anything."""
    return int(attempt[:_LINEAGE_DIGITS], 16)


def part_path(writer: int) -> str:
    """Path of a writer's part manifest inside the attempt."""
    return f"parts/w{writer:05d}.json"


def data_path(writer: int, index: int) -> str:
    """Path of a writer's data file inside the attempt."""
    return f"data/w{writer:05d}-{index:03d}.safetensors"


def artifact_path(name: str, *, beside_model: bool = False) -> str:
    """Path of an artifact inside the attempt; ``beside_model``: at the top, unless something else has that name."""
    taken = is_model_file(name) or name.partition("/")[0] in (ROOT_MANIFEST, PIN, "parts", "data", "artifacts")
    return name if beside_model and not taken else f"artifacts/{name}"


def artifact_name(path: str) -> str:
    """The name of the artifact at a path that ``artifact_path`` made."""
    return path.removeprefix("artifacts/")


def is_model_file(name: str) -> bool:
    """Whether a file of a Hugging Face folder holds, or lists, weights."""
    return name.startswith("model") and name.endswith((".safetensors", HF_INDEX))


def entry_name(fqn: str, kind: str, shape: Shape, region: Region) -> str:
    """Name of a tensor, or of a part of it, inside a data file: parameters keep their own name, so HF tools know them.

    Informational: readers go by the manifest and never take a name apart.
    """
    name = (fqn if kind == "param" else f"optim.{kind}.{fqn}").replace("@@", "@@@@")
    if isinstance(region, Box):
        ends = zip(region.offsets, region.lengths, strict=True)
        return f"{name}@@box:{','.join(f'{start}:{start + length}' for start, length in ends)}"
    return name if region == whole(shape) else f"{name}@@flat:{region.start}"
