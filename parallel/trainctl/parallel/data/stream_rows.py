"""Rows of a corpus that is read and tokenised when they are needed, in bounded memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile

import numpy as np
from numpy.typing import NDArray

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.data.formats.port import Content
from trainctl.parallel.data.records import CorpusReader
from trainctl.parallel.data.rows import Ids, Rows, rows_of
from trainctl.parallel.data.stream_index import Groups, checksum
from trainctl.parallel.data.tokenizer import TextTokenizer
from trainctl.parallel.plan.grouped_order import OPEN_RUNS, GroupedOrder
from trainctl.parallel.plan.sample_order import Order

KEPT_BYTES = 64 << 20
"""Token ids kept of the groups read last."""
_MEASURED_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutting:
    """How groups become rows.

    Attributes:
        packing: as in the spec.
        context: positions of a row.
        per_size: rows for each byte of text (for each token of a shard), measured on a few groups.
    """

    packing: str
    context: int
    per_size: float = 0.0

    def counts(self, groups: Groups) -> NDArray[np.int64]:
        """Rows of each group: known for ``pad``, else as many as it is expected to fill; at least one."""
        if self.packing == "pad":
            return groups.groups["documents"].astype(np.int64)
        expected = groups.groups["size"] * self.per_size
        whole = np.floor(expected + 1e-6) if self.packing == "stream" else np.rint(expected)
        return np.maximum(whole.astype(np.int64), 1)


class GroupReader:
    """Reads groups as token ids.

    Args:
        reader: of the corpus.
        tokenizer: of the run.
        groups: where they are.
        cutting: what rows are made of them.
    """

    def __init__(self, reader: CorpusReader, tokenizer: TextTokenizer, groups: Groups, cutting: Cutting) -> None:
        self._reader = reader
        self._tokenizer = tokenizer
        self._groups = groups
        self._cutting = cutting

    def tokens(self, group: int) -> tuple[Ids, NDArray[np.generic]]:
        """Ids of a group, and the ends of its documents.

        Raises:
            DataError: a file cannot be read any more, or has other content than when the index was made.
        """
        records = [record for extent in self._groups.extents_of(group) for record in self._reader.extent(extent)]
        self._check(group, records)
        if self._cutting.packing == "pad":  # the rest of a document that has its sample in the group before
            records = list(dropwhile(lambda record: not record[0], records))
        parts: list[Ids] = []
        ends: list[int] = []
        total = 0
        for begins, ids in self._encoded(records):
            if begins and total:
                ends.append(total)
            parts.append(ids)
            total += len(ids)
        dtype = np.uint16 if self._tokenizer.vocab_size <= 1 << 16 else np.uint32
        joined = np.concatenate(parts).astype(dtype) if parts else np.empty(0, dtype=dtype)
        return joined, np.array([*ends, total] if total else [], dtype=np.int64)

    def _check(self, group: int, records: Sequence[tuple[bool, Content]]) -> None:
        found = 0
        for _, content in records:
            found = checksum(content, found)
        if found == self._groups.groups[group]["checksum"]:
            return
        corpus = self._reader.corpus
        files = sorted({corpus.files[extent.file].path for extent in self._groups.extents_of(group)})
        more = f" or one of the {len(files) - 1} files after it" if len(files) > 1 else ""
        raise DataError(
            f"expected the content that {files[0]}{more} had when the run began, found another one",
            hint="put the files back as they were, or start a new run; a run's data must not change under it",
        )

    def _encoded(self, records: Sequence[tuple[bool, Content]]) -> list[tuple[bool, Ids]]:
        """All texts at once, so that the tokenizer can use all cores."""
        encoded = self._tokenizer.encode([content for _, content in records if isinstance(content, str)])
        return [(begins, next(encoded) if isinstance(content, str) else content) for begins, content in records]

    def rows(self, group: int) -> tuple[Rows, int]:
        """Rows of a group, and the size of its ids in bytes."""
        ids, ends = self.tokens(group)
        cutting = self._cutting
        rows = rows_of(ids, ends, packing=cutting.packing, context=cutting.context, keep_rest=True)
        return rows, ids.nbytes

    def measure(self) -> float:
        """Rows for each unit of size, over a few groups spread over the corpus: the same on all nodes."""
        count, cutting = len(self._groups.groups), self._cutting
        chosen = sorted({count * i // _MEASURED_GROUPS for i in range(_MEASURED_GROUPS)}) if count else []
        size, rows = 0, 0.0
        for group in chosen:
            ids, ends = self.tokens(group)
            size += int(self._groups.groups[group]["size"])
            if cutting.packing == "stream":
                rows += len(ids) / cutting.context
            else:
                rows += rows_of(ids, ends, packing=cutting.packing, context=cutting.context).count
        return rows / size if size else 0.0


class StreamRows:
    """Implements ``Rows`` over groups. A group that has fewer rows than expected gives empty ones, which are padding.

    Args:
        groups: where they are.
        counts: rows of each group.
        reader: reads them.
    """

    def __init__(self, groups: Groups, counts: NDArray[np.int64], reader: GroupReader) -> None:
        self._reader = reader
        self._stops = np.cumsum(counts)
        self.count = int(self._stops[-1]) if len(counts) else 0
        self._kept: OrderedDict[int, tuple[Rows, int]] = OrderedDict()
        self._kept_bytes = 0
        self._group_bytes = 2 * int(groups.groups["size"].mean()) if len(counts) else 1

    def row(self, number: int) -> Sequence[Ids]:
        """See ``Rows``.

        Raises:
            DataError: a file cannot be read any more.
        """
        group = int(np.searchsorted(self._stops, number, side="right"))
        rows = self._open(group)
        place = number - (int(self._stops[group - 1]) if group else 0)
        return rows.row(place) if place < rows.count else ()

    def order(self, *, seed: int, batch: BatchSpec) -> Order:
        """Groups in random order, a few open at a time; see ``GroupedOrder``."""
        per_group = max(1, self.count // max(1, len(self._stops)))
        most_lanes = KEPT_BYTES // (2 * OPEN_RUNS * self._group_bytes)  # a run may lie in two groups
        return GroupedOrder.of(
            self.count, seed=seed, batch=batch, group_samples=per_group, most_lanes=max(1, min(8, most_lanes))
        )

    def _open(self, group: int) -> Rows:
        if group in self._kept:
            self._kept.move_to_end(group)
            return self._kept[group][0]
        rows, size_bytes = self._reader.rows(group)
        self._kept[group] = rows, size_bytes
        self._kept_bytes += size_bytes
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            _, (_, dropped_bytes) = self._kept.popitem(last=False)
            self._kept_bytes -= dropped_bytes
        return rows
