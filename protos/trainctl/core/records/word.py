"""Words of a list that another version may know more of."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Self

_WORD = re.compile(r"[A-Za-z0-9_-]{0,40}")


class Word(StrEnum):
    """A word that keeps its spelling where this version does not know it; it is then none of the members.

    For what is only looked at or passed on: to whoever looks, an unknown word is evidence of nothing. What has to be
    carried out is a plain ``StrEnum``, of which an unknown one is refused.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            return None
        word = str.__new__(cls, value)
        word._name_, word._value_ = "", value
        return word

    @property
    def known(self) -> bool:
        """Whether it is one of the members."""
        return bool(self._name_)
