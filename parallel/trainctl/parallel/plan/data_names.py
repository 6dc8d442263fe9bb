"""Names of the data part of a job: formats, packings, modes; which format a file's name means. Pure."""

from __future__ import annotations

from collections.abc import Mapping

FORMATS = ("auto", "text", "jsonl", "parquet", "tokens")
PACKINGS = ("stream", "documents", "pad")
MODES = ("cached", "streaming")
CORRUPT_POLICIES = ("fail", "skip")
TOKENIZER_KINDS = ("bytes", "bpe", "file")
STDLIB = "python-stdlib"
"""The ``uri`` that means the running Python's standard library."""

_BY_SUFFIX: Mapping[str, str] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".bin": "tokens",
}
_ARCHIVES = (".zst", ".bz2", ".xz", ".lz4", ".br", ".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz")


def is_archive(path: str) -> bool:
    """Whether the name is that of a compressed or packed file of a kind that nothing here unpacks."""
    return path.lower().endswith(_ARCHIVES)


def format_of_name(path: str) -> str:
    """The format ``auto`` means for a file: by its suffix before ``.gz``, ``text`` for every other."""
    name = path.lower().removesuffix(".gz")
    return next((chosen for suffix, chosen in _BY_SUFFIX.items() if name.endswith(suffix)), "text")


def is_sidecar(path: str) -> bool:
    """Whether a file is the description of a token shard beside it, and no data."""
    return path.endswith(".bin.json")


def is_walked(name: str) -> bool:
    """Whether a folder of this name inside a source is looked into."""
    return not name.startswith(".") and name != "__pycache__"
