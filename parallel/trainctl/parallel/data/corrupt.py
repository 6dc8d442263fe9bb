"""Records that cannot be read: counted, said, bounded; what was skipped has a digest that all nodes share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import CorruptSpec
from trainctl.parallel.data.formats.port import CorpusFile, Record
from trainctl.parallel.data.progress import say

_SAID = 10
_NOTICED = 3
_POLICY_PATH = "spec.train.data.corrupt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Which records of a source were left out.

    Attributes:
        count: how many.
        digest: of their places; equal on two nodes if and only if they skipped the same ones.
        first: the first ones, each with file, place and reason.
    """

    count: int = 0
    digest: str = ""
    first: tuple[str, ...] = ()


class CorruptLedger:
    """Takes note of the corrupt records of one source, in the order in which they are found.

    Args:
        spec: what to do.
        uri: of the source.
    """

    def __init__(self, spec: CorruptSpec, uri: str) -> None:
        self._spec = spec
        self._uri = uri
        self._count = 0
        self._first: list[str] = []
        self._hasher = hashlib.blake2b(digest_size=16)

    def note(self, number: int, file: CorpusFile, record: Record) -> None:
        """Counts a corrupt record of the ``number``-th file.

        Raises:
            DataError: the policy is ``fail``, or there are more than it allows; names the first.
        """
        text = f"{file.path}, {record.where}: {record.reason}"
        self._count += 1
        self._hasher.update(f"{number}:{record.start}\n".encode())
        if len(self._first) < _SAID:
            self._first.append(text)
            if self._spec.policy == "skip":
                say(f"skipping a corrupt record: {text}")
        check_skipped(self.skipped, self._spec, self._uri)

    @property
    def skipped(self) -> Skipped:
        """What was noted so far."""
        return Skipped(
            count=self._count,
            digest=self._hasher.hexdigest() if self._count else "",
            first=tuple(self._first),
        )


def check_skipped(skipped: Skipped, spec: CorruptSpec, uri: str) -> None:
    """Compares with what is allowed.

    Raises:
        DataError: more than that was skipped; names the first.
    """
    allowed = spec.max_records if spec.policy == "skip" else 0
    if skipped.count <= allowed:
        return
    if spec.policy == "fail":
        raise DataError(
            f"expected only readable records in the corpus {uri}, found {skipped.first[0]}",
            hint=f"repair or remove it, or go on without such records: {_POLICY_PATH}.policy: skip",
        )
    raise DataError(
        f"expected at most {allowed} corrupt records in {uri}, found {skipped.count}; the first: {skipped.first[0]}",
        hint=f"repair the files, or raise {_POLICY_PATH}.maxRecords",
    )


def notice_of(skipped: Skipped) -> str:
    """What people should know of it, the same on all nodes; empty if nothing was skipped."""
    if not skipped.count:
        return ""
    some = "; ".join(skipped.first[:_NOTICED])
    records = "1 corrupt record" if skipped.count == 1 else f"{skipped.count} corrupt records"
    return f"{records} skipped (digest {skipped.digest[:12]}), the first: {some}"


def together(parts: Sequence[Skipped]) -> Skipped:
    """What was skipped in several sources."""
    found = [part for part in parts if part.count]
    if len(found) <= 1:
        return found[0] if found else Skipped()
    return Skipped(
        count=sum(part.count for part in found),
        digest=hashlib.blake2b("".join(part.digest for part in parts).encode(), digest_size=16).hexdigest(),
        first=tuple(text for part in found for text in part.first)[:_SAID],
    )
