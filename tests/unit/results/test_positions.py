"""How far the records came, as a line in them says.

Without it one damaged line could end what writes them, or begin a hook anew at a step that nobody knows.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.core.json_text import NoJsonError
from trainctl.parallel.results.delivered import START, DeliveredFile, position_in

NO_POSITIONS = (
    b"[" * 9_000,
    b"\xff\xfe",
    b"[]",
    b"7",
    b"{}",
    b'{"lineage": 1, "step": 1e999}',
    b'{"lineage": 1, "step": NaN}',
    b'{"lineage": [], "step": 1}',
)


def test_a_line_names_a_position() -> None:
    assert position_in(b'{"event": "step", "lineage": 2, "step": 7}') == (2, 7)


@pytest.mark.parametrize("line", NO_POSITIONS, ids=range(len(NO_POSITIONS)))
def test_a_line_without_a_position(line: bytes, tmp_path: Path) -> None:
    with pytest.raises(NoJsonError):
        position_in(line)
    DeliveredFile(str(tmp_path), "h").write((1, 4), last=True)
    (written,) = (tmp_path / "delivered").iterdir()
    with written.open("ab") as file:
        file.write(line + b"\n")
    assert DeliveredFile(str(tmp_path), "h").read() == START
