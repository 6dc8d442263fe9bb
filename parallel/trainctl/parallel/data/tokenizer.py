"""Text to token ids and back: single bytes, a BPE trained on the corpus, or any ``tokenizer.json``.

The first two have no special tokens, and ``decode(encode(text)) == text``. Nor are special tokens added by the third.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from trainctl.parallel.plan.data_rules import NUM_BYTES


class TextTokenizer:
    """A tokenizer. With ``kind="bytes"`` an id is the value of a UTF-8 byte.

    Args:
        inner: of the ``tokenizers`` library.
        kind: as in the spec.
        vocab_size: entries that a model shall have; 0: as many as there are ids.
    """

    def __init__(self, inner: Tokenizer, *, kind: str, vocab_size: int = 0) -> None:
        self._inner = inner
        self.kind = kind
        self.vocab_size: int = vocab_size or id_count(inner)

    def encode(self, texts: Sequence[str]) -> Iterator[NDArray[np.generic]]:
        """Ids of each text, shape (tokens,), of an unsigned integer type that holds the vocabulary."""
        if self.kind == "bytes":
            yield from (np.frombuffer(text.encode(), dtype=np.uint8) for text in texts)
        else:
            encoded = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
            yield from (np.array(e.ids, dtype=np.uint32) for e in encoded)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are no UTF-8 (a character cut in two) become replacement characters."""
        text: str = self._inner.decode(list(ids))
        return text

    def to_json(self) -> str:
        """The content of ``tokenizer.json``, which ``tokenizers`` and ``transformers`` load."""
        text: str = self._inner.to_str()
        return text


def id_count(inner: Tokenizer) -> int:
    """One more than the largest id, which may be more than there are entries."""
    return max(inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def tokenizer_from_json(text: str, *, kind: str, vocab_size: int = 0) -> TextTokenizer:
    """The tokenizer that ``to_json`` wrote."""
    return TextTokenizer(Tokenizer.from_str(text), kind=kind, vocab_size=vocab_size)


def tokenizer_config(context: int) -> dict[str, object]:
    """The content of ``tokenizer_config.json`` for ``transformers``."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
    }


def byte_tokenizer() -> TextTokenizer:
    """One token a byte, in GPT-2's printable spelling of bytes, without merges."""
    inner = _byte_level(models.BPE(vocab=_byte_spelling(), merges=[]), split_words=False)
    return TextTokenizer(inner, kind="bytes")


def train_bpe(texts: Iterable[str], *, vocab_size: int) -> TextTokenizer:
    """A BPE over bytes, as GPT-2's: words are split off first, then the commonest pairs of neighbours are merged.

    The same texts give the same tokenizer, on every machine. Fewer entries come out if the texts have no more pairs.
    """
    inner = _byte_level(models.BPE(), split_words=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return TextTokenizer(inner, kind="bpe")


def _byte_level(model: models.BPE, *, split_words: bool) -> Tokenizer:
    inner = Tokenizer(model)
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split_words)
    inner.decoder = decoders.ByteLevel()
    return inner


def _byte_spelling() -> dict[str, int]:
    """GPT-2's character for each byte: printable ones stand for themselves, the others for 256, 257, ... in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(NUM_BYTES) if byte not in printable]
    return {chr(b): b for b in printable} | {chr(NUM_BYTES + i): b for i, b in enumerate(others)}
