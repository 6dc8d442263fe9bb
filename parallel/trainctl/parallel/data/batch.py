"""What a data set hands to a loss: inputs, targets, and where documents begin.

Shape suffixes: B rows, T positions of a row (the context), L tokens of a document.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100
"""Target of a position that counts for nothing; what ``torch.nn.functional.cross_entropy`` ignores by default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows of tokens to predict the next token from.

    Attributes:
        ids: inputs, int64 (B, T).
        targets: the token after each input, int64 (B, T); ``IGNORED`` where nothing is learned (padding).
        num_targets: how many targets are real; known on the host, so that counting them waits for no device.
        documents: number of the document each position belongs to, int64 (B, T), rising within a row; a position may
            attend to its own document only. The padding of a row is a document of its own. None: a row is one document.
    """

    ids: Tensor
    targets: Tensor
    num_targets: int
    documents: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on ``device``."""
        return Batch(
            ids=self.ids.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            num_targets=self.num_targets,
            documents=None if self.documents is None else self.documents.to(device, non_blocking=True),
        )

    def positions(self) -> Tensor | None:
        """Position of each token within its document, int64 (B, T); None where that is 0..T-1 in every row."""
        return None if self.documents is None else document_positions(self.documents)

    def attention_mask(self) -> Tensor | None:
        """Who attends to whom, bool (B, 1, T, T), causal; None where plain causal attention is meant."""
        return None if self.documents is None else document_mask(self.documents)


def document_positions(documents_BT: Tensor) -> Tensor:
    """Distance of each position from the first one of its document, int64 (B, T)."""
    index_T = torch.arange(documents_BT.shape[1], device=documents_BT.device)
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    first_BT = torch.where(begins_BT, index_T, 0).cummax(dim=1).values
    return index_T - first_BT


def document_mask(documents_BT: Tensor) -> Tensor:
    """True where position q may look at position k: same document, not later; bool (B, 1, T, T) over (q, k)."""
    same_BTT = documents_BT[:, :, None] == documents_BT[:, None, :]
    return same_BTT.tril()[:, None]


def whole_rows(rows_BS: NDArray[np.int64]) -> Batch:
    """Rows of ``T + 1`` neighbouring tokens, each one document: inputs ``[:-1]``, targets ``[1:]``."""
    rows = _tensor(rows_BS)
    ids_BT, targets_BT = rows[:, :-1], rows[:, 1:]
    return Batch(ids=ids_BT, targets=targets_BT, num_targets=targets_BT.numel())


def packed_rows(rows: Sequence[Sequence[NDArray[np.generic]]], *, context: int, padding_id: int = 0) -> Batch:
    """Whole documents side by side.

    A document of L tokens takes L - 1 positions of its row: all but its last token are inputs, all but its first are
    targets. What is left of a row is padding.

    Args:
        rows: of each row its documents, ids of shape (L,), L at least 2; together at most ``context`` positions.
        context: T.
        padding_id: input where nothing is; any id that the model knows.
    """
    shape = (len(rows), context)
    ids, targets = np.full(shape, padding_id, dtype=np.int64), np.full(shape, IGNORED, dtype=np.int64)
    documents = np.empty(shape, dtype=np.int64)
    num_targets = 0
    for row, pieces in enumerate(rows):
        start = 0
        for number, piece in enumerate(pieces):
            stop = start + len(piece) - 1
            ids[row, start:stop], targets[row, start:stop] = piece[:-1], piece[1:]
            documents[row, start:stop] = number
            start = stop
        documents[row, start:] = len(pieces)
        num_targets += start
    return Batch(
        ids=_tensor(ids),
        targets=_tensor(targets),
        num_targets=num_targets,
        documents=_tensor(documents),
    )


def _tensor(array: NDArray[np.int64]) -> Tensor:
    """The array as a tensor, in the same memory."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType]  (torch gives its parameter no type)
