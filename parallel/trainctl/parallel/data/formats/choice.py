"""Which format a file has."""

from __future__ import annotations

from trainctl.parallel.data.formats.jsonl import JsonlFormat
from trainctl.parallel.data.formats.parquet import ParquetFormat
from trainctl.parallel.data.formats.port import Format
from trainctl.parallel.data.formats.text import TextFormat
from trainctl.parallel.data.formats.tokens import TokensFormat
from trainctl.parallel.plan.data_names import format_of_name


def format_for(name: str, path: str, *, field: str, vocab_size: int) -> Format:
    """The format ``name``; ``auto`` decides by the name of the file.

    Raises:
        DataError: the package that reads it is not installed.
    """
    chosen = format_of_name(path) if name == "auto" else name
    if chosen == "jsonl":
        return JsonlFormat(field)
    if chosen == "parquet":
        return ParquetFormat(field)
    return TokensFormat(vocab_size) if chosen == "tokens" else TextFormat()
