"""The token in the folder of an installation.

Without it something else in its place could fill a controller's memory, or end it with an error without a hint.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.controller.run_dir import RunDir
from trainctl.core.errors import PreconditionError


def test_it_is_made_once(tmp_path: Path) -> None:
    token = RunDir(tmp_path).token()
    assert (len(token), RunDir(tmp_path).token()) == (64, token)


@pytest.mark.parametrize(
    ("content", "what"),
    [(b" \n", "is empty"), (b"\xff\xfe", "is not a token"), (b"a" * (64 * 1024 + 1), "is not a token")],
    ids=["empty", "no-text", "large"],
)
def test_something_else_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(PreconditionError, match=f"token {what}") as refused:
        RunDir(tmp_path).token()
    assert "remove it" in refused.value.hint
