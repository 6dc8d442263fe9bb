"""What somebody types when asked, and what the controller got."""

from __future__ import annotations

import io
import sys

import pytest

from unit.cli.fake_controller import FakeController


class Terminal(io.StringIO):
    """A stream with somebody in front of it."""

    def isatty(self) -> bool:
        return True


def sent(controller: FakeController, method: str) -> list[object]:
    return [request for called, request in controller.calls if called == method]


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> Terminal:
    heard = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(text))
    monkeypatch.setattr(sys, "stderr", heard)
    return heard
