"""Parquet: a row is a record, one of whose columns is the text. Read by pyarrow, which is an optional package."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from trainctl.core.errors import DataError
from trainctl.parallel.data.formats.port import CorpusFile, Record

GROUP_BYTES = 8 << 20
_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20
_SHOWN_COLUMNS = 8


class ParquetFormat:
    """Positions are rows. Only the text's column is read.

    A damaged page cannot be stepped over: it takes the rest of its row group with it, as one corrupt record.

    Args:
        field: the column that holds the text.

    Raises:
        DataError: pyarrow is not installed.
    """

    name = "parquet"

    def __init__(self, field: str) -> None:
        self._field = field
        try:
            import pyarrow  # pyright: ignore[reportMissingTypeStubs]  (it has none)
            import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]
        except ImportError as error:
            hint = "pip install 'trainctl-orchestrator[data]' on every node"
            raise DataError("reading parquet needs pyarrow, which is not installed", hint=hint) from error
        self._arrow: Any = pyarrow
        self._parquet: Any = pyarrow.parquet

    def group_bytes(self, path: str) -> int:
        """See ``Format``."""
        return GROUP_BYTES

    def held_out_from(self, filesystem: Any, file: CorpusFile, *, every: int) -> int | None:
        """See ``Format``."""
        return None

    def read(
        self, filesystem: Any, file: CorpusFile, *, start: int = 0, number: int = 0, cut: int | None = None
    ) -> Iterator[Record]:
        """See ``Format``; a record's number is its row."""
        with filesystem.open(file.path, "rb") as stream:
            try:
                table = self._parquet.ParquetFile(stream, buffer_size=_BUFFER_BYTES)
            except (self._arrow.ArrowException, EOFError) as error:
                yield _corrupt(start, start, f"no parquet file: {_short(error)}")
                return
            self._check_column(table.schema_arrow, file.path)
            sizes = [table.metadata.row_group(i).num_rows for i in range(table.num_row_groups)]
            for group, (first, stop) in enumerate(zip(accumulate(sizes, initial=0), accumulate(sizes), strict=False)):
                if stop > start:
                    yield from self._row_group(table, group, first=first, stop=stop, start=start)

    def _row_group(self, table: Any, group: int, *, first: int, stop: int, start: int) -> Iterator[Record]:
        row = first
        try:
            for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=[self._field], use_threads=False):
                skipped = min(max(start - row, 0), len(batch))
                values = self._bytes(batch.column(0).slice(skipped)).to_pylist()
                row += skipped
                for value in values:
                    if value is None:
                        yield _corrupt(row, row + 1, f"column {self._field!r} is null")
                    else:
                        text = value.decode("utf-8", errors="replace")
                        yield Record(start=row, stop=row + 1, number=row, content=text)
                    row += 1
        except (self._arrow.ArrowException, OSError, EOFError) as error:
            yield _corrupt(row, stop, f"rows {row} to {stop - 1} of row group {group}: {_short(error)}")

    def _bytes(self, column: Any) -> Any:
        """The texts undecoded, so that one bad byte costs a character and not the batch."""
        if self._arrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return column.cast(self._arrow.large_binary())

    def _check_column(self, schema: Any, path: str) -> None:
        """A column that is not there, or not text, is missing in every row: that is no corrupt record."""
        hint = "name the text's column in spec.train.data.field"
        if self._field not in schema.names:
            names = ", ".join(map(repr, schema.names[:_SHOWN_COLUMNS]))
            raise DataError(f"expected a column {self._field!r} in {path}, found {names}", hint=hint)
        found = schema.field(self._field).type
        types = self._arrow.types
        kind = found.value_type if types.is_dictionary(found) else found
        if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
            raise DataError(f"expected text in column {self._field!r} of {path}, found {found}", hint=hint)


def _corrupt(start: int, stop: int, reason: str) -> Record:
    return Record(start=start, stop=stop, number=start, content=None, where=f"row {start}", reason=reason)


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
