"""The command that makes text from an exported model.

Without it a folder that is no model could end it with a traceback, or with a hint that says nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainctl.core.errors import PreconditionError
from trainctl.parallel import generate


def test_it_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PreconditionError("no model")

    monkeypatch.setattr(sys, "argv", ["generate", str(tmp_path)])
    monkeypatch.setattr(generate, "generate_text", refuse)
    assert generate.main() == 6
    assert capsys.readouterr().err == "error: no model (FAILED_PRECONDITION)\n", "no empty hint"
