"""Without it targets of documents could be dropped or doubled, or most of a batch be padding."""

from __future__ import annotations

import random

import numpy as np
import pytest

from trainctl.parallel.data import packing
from trainctl.parallel.data.batch import IGNORED
from trainctl.parallel.data.packing import cut_documents, pack
from trainctl.parallel.data.rows import rows_of, to_batch


def _corpus(seed: int) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], list[np.ndarray], int]:
    drawn = random.Random(seed)
    context = drawn.randint(1, 50)
    lengths = [drawn.choice([1, 2, drawn.randint(1, 3 * context), context, context + 1]) for _ in range(60)]
    ids = np.arange(1, sum(lengths) + 1)
    return ids, np.split(ids, np.cumsum(lengths)[:-1]), context


@pytest.mark.parametrize("seed", range(20))
def test_every_target_of_every_document_is_in_one_row(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_BLOCK", random.Random(seed).choice([1, 7, 4096]))
    ids, documents, context = _corpus(seed)
    ends = np.cumsum([len(document) for document in documents])
    rows = rows_of(ids, ends, packing="documents", context=context)
    batch = to_batch([rows.row(number) for number in range(rows.count)], context=context)
    seen = sorted(batch.targets[batch.targets != IGNORED].tolist())
    assert seen == sorted(int(i) for document in documents for i in document[1:])
    assert batch.num_targets == len(seen)
    real = batch.targets != IGNORED
    assert (batch.targets[real] == batch.ids[real] + 1).all()


@pytest.mark.parametrize("seed", range(5))
def test_pad_gives_each_document_a_row_cut_to_the_context(seed: int) -> None:
    ids, documents, context = _corpus(seed)
    ends = np.cumsum([len(document) for document in documents])
    rows = rows_of(ids, ends, packing="pad", context=context)
    usable = [document for document in documents if len(document) > 1]
    assert rows.count == len(usable)
    batch = to_batch([rows.row(number) for number in range(rows.count)], context=context)
    for targets, document in zip(batch.targets.tolist(), usable, strict=True):
        expected = document[1 : context + 1].tolist()
        assert targets == expected + [IGNORED] * (context - len(expected))


def test_stream_joins_documents() -> None:
    rows = rows_of(np.arange(14), np.array([3, 14]), packing="stream", context=4)
    assert rows.count == 3
    assert to_batch([rows.row(2)], context=4).targets.tolist() == [[9, 10, 11, 12]]
    longer = rows_of(np.arange(14), np.array([3, 14]), packing="stream", context=4, keep_rest=True)
    assert longer.count == 4
    assert to_batch([longer.row(3)], context=4).targets.tolist() == [[13, IGNORED, IGNORED, IGNORED]]


def test_few_positions_stay_empty() -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(5, 1, 20_000).astype(np.int64) + 2, 5000)
    pieces = cut_documents(np.cumsum(lengths), context=512)
    packed = pack(pieces.length, context=512)
    assert pieces.length.sum() > 0.99 * 512 * (len(packed.first) - 1)
    assert sorted(packed.piece.tolist()) == list(range(len(pieces.length)))
