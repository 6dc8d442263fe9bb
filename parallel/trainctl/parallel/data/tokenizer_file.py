"""A tokenizer that exists already: ``tokenizer.json`` as the ``tokenizers`` library writes it."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer

from trainctl.core.errors import DataError, Problem, SpecError
from trainctl.core.records.train_spec import TokenizerSpec
from trainctl.parallel.data.filesystem import filesystem_of
from trainctl.parallel.data.tokenizer import TextTokenizer, id_count

FILE_NAME = "tokenizer.json"
_PATH = "spec.train.tokenizer"


def read_tokenizer(spec: TokenizerSpec) -> TextTokenizer:
    """The tokenizer of kind ``file``: a file or a folder with a ``tokenizer.json``, on anything fsspec opens.

    Cutting and padding that the file asks for are switched off: a whole document becomes as many tokens as it has.

    Raises:
        DataError: there is none, or it cannot be read.
        SpecError: ``vocabSize`` is less than the number of its ids.
    """
    inner = _load(spec.path)
    inner.no_truncation()
    inner.no_padding()
    count = id_count(inner)
    if spec.vocab_size and spec.vocab_size < count:
        message = f"expected at least {count}, the ids of {spec.path}, or 0 for as many, found {spec.vocab_size}"
        raise SpecError((Problem(path=f"{_PATH}.vocabSize", message=message),), source="tokenizer")
    return TextTokenizer(inner, kind="file", vocab_size=spec.vocab_size)


def _load(path: str) -> Any:
    try:
        filesystem, root = filesystem_of(path)
        file = f"{root.rstrip('/')}/{FILE_NAME}" if filesystem.isdir(root) else root
        text = filesystem.cat_file(file).decode()
    except (OSError, ValueError, ImportError) as error:
        raise DataError(
            f"expected a tokenizer at {path}, found: {type(error).__name__}: {error}",
            hint=f"{_PATH}.path takes a {FILE_NAME} or a folder with one, seen from the worker's node",
        ) from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception for whatever it does not understand
        raise DataError(
            f"expected a tokenizer of the `tokenizers` library in {file}, found: {error}",
            hint="write it with Tokenizer.save(), or save_pretrained() of a fast tokenizer of transformers",
        ) from error
