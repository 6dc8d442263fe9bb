"""Without it `trainctl export` could take another step than asked for, or fail without saying what to install."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trainctl.cli.commands import export
from trainctl.protos.v1.records_pb2 import CheckpointRef
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController

Calls = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made: Calls = []
    healed = {"s3://bucket/shaky": 2}

    def exporter(source: str, *args: Any, **kwargs: Any) -> SimpleNamespace:
        made.append(((source, *args), kwargs))
        names = ("model.safetensors", "config.json") if source.startswith("s3:") else ("model.safetensors",)
        return SimpleNamespace(files=names, healed_reads=healed.get(source, 0))

    monkeypatch.setattr(export, "_exporter", lambda: exporter)
    return made


def test_export_of_a_job_takes_the_newest_or_the_chosen_step(
    cli: Cli, controller: FakeController, calls: Calls, tmp_path: Path
) -> None:
    controller.add_job("a")
    missing = cli("checkpoints", "export", "a", str(tmp_path / "out"))
    assert missing.code == 3
    assert "job a has no checkpoint" in missing.err
    controller.checkpoints += [CheckpointRef(uri="/c/10/x", step=10), CheckpointRef(uri="/c/20/x", step=20)]
    done = cli("checkpoints", "export", "a", str(tmp_path / "out"))
    assert (done.code, done.out) == (0, f"{tmp_path}/out\n")
    cli("checkpoints", "export", "a", "out", "--step", "10", "--dtype", "bfloat16", "--force")
    assert [args[0] for args, _ in calls] == ["/c/20/x", "/c/10/x"]
    assert calls[1][0][1] == str(Path.cwd() / "out")
    assert calls[1][1] | {"moving": None} == {"dtype": "bfloat16", "overwrite": True, "moving": None}
    wrong = cli("checkpoints", "export", "a", "out", "--step", "15")
    assert wrong.code == 3
    assert "it has 10, 20" in wrong.err


def test_export_of_a_path_asks_nobody(cli: Cli, controller: FakeController, calls: Calls, tmp_path: Path) -> None:
    controller.stop()
    weights = cli("checkpoints", "export", str(tmp_path), "out")
    model = cli("checkpoints", "export", "s3://bucket/run", "out", "--step", "7")
    assert (weights.code, model.code) == (0, 0)
    assert "weights only" in weights.err
    assert "transformers loads it" in model.err
    assert "transformers" not in weights.err
    assert [args[0] for args, _ in calls] == [str(tmp_path), "s3://bucket/run/step-000000000007"]
    assert "repeated" not in weights.err + model.err
    shaky = cli("checkpoints", "export", "s3://bucket/shaky", "out")
    assert "2 reads only right when repeated: see what changes bytes on the way" in shaky.err


def test_a_folder_does_not_hide_a_job(
    cli: Cli, controller: FakeController, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    controller.add_job("a")
    controller.checkpoints.append(CheckpointRef(uri="/c/10", step=10))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    cli("checkpoints", "export", "a", "out")
    cli("checkpoints", "export", "./a", "out")
    assert [args[0] for args, _ in calls] == ["/c/10", str(tmp_path / "a")]
    assert "for the folder of that name write ./b" in cli("checkpoints", "export", "b", "out").err


def test_export_says_which_extra_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "numpy" else real(name, *rest))
    result = cli("checkpoints", "export", "/somewhere", "out")
    assert result.code == 6
    assert "the export needs numpy" in result.err
    assert "trainctl-orchestrator[export]" in result.err
