"""Without it a misspelt hook or a missing library would cost a job, or be dropped without a word."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from trainctl.core.errors import SpecError
from trainctl.core.records.spec import ResultsSpec, WandbSpec
from trainctl.parallel.results.sources import hooks_of


def names(results: ResultsSpec, records: str = "/r") -> list[str]:
    return [source.name for source in hooks_of(results, records=records)]


def test_what_the_job_file_asks_for() -> None:
    everything = ResultsSpec(tensorboard=True, wandb=WandbSpec(project="p"))
    assert names(everything) == ["jsonl", "tensorboard", "wandb"]
    assert names(ResultsSpec(jsonl=False)) == []
    assert names(everything, records="") == [], "without a folder nothing is written"


def test_hooks_of_the_users_own_from_pythonpath(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_hooks_of_test.py").write_text(
        "from trainctl.parallel.results import Hook\n"
        "class One(Hook):\n    pass\n"
        "class Other:\n    class Two(One):\n        pass\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    hooks = ("own_hooks_of_test:One", "own_hooks_of_test:Other.Two", "own_hooks_of_test:One")
    found = hooks_of(ResultsSpec(jsonl=False, hooks=hooks), records="/r")
    assert [source.name for source in found] == [*hooks[:2], "own_hooks_of_test:One-2"]
    assert type(found[1].make()).__name__ == "Two"


def test_everything_that_cannot_be_used_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_hooks_of_test.py").write_text("raise RuntimeError('at import')\n")
    (tmp_path / "needs_hooks_of_test.py").write_text("import no_such_module_at_all\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    hooks = (
        "no_such_package_x:A",
        "broken_hooks_of_test:A",
        "needs_hooks_of_test:A",
        "collections:Nothing",
        "collections:OrderedDict",
        "os:getcwd",
    )
    with pytest.raises(SpecError) as caught:
        hooks_of(ResultsSpec(hooks=hooks), records="/r")
    said = {problem.path: problem.message for problem in caught.value.problems}
    assert list(said) == [f"spec.results.hooks[{index}]" for index in range(6)]
    for index, words in enumerate(
        (
            "module no_such_package_x was not found",
            "raised RuntimeError: at import",
            "module no_such_module_at_all was not found, which needs_hooks_of_test imports",
            "has no 'Nothing'",
            "found a class OrderedDict",
            "found a builtin_function_or_method",
        )
    ):
        assert words in said[f"spec.results.hooks[{index}]"]


def test_a_missing_library_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SpecError) as caught:
        hooks_of(ResultsSpec(tensorboard=True, wandb=WandbSpec(project="p")), records="/r")
    said = [f"{problem.path} {problem.message}" for problem in caught.value.problems]
    assert len(said) == 2
    assert "pip install 'trainctl-orchestrator[tensorboard]'" in said[0]
    assert "pip install 'trainctl-orchestrator[wandb]'" in said[1]
