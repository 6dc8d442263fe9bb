"""Submit, train, finish, export: the path that everything else disturbs.

Without it the plainest use could be broken while every part passes its tests.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.ledger import assert_exact_ledger, tensors_of
from e2e.local_system import LocalSystem, tiny_job, workers

pytestmark = pytest.mark.e2e
Local = Callable[..., LocalSystem]


def test_a_job_trains_to_its_end_and_is_exported(system: LocalSystem, corpus: Path, tmp_path: Path) -> None:
    system.submit(tiny_job("main", corpus, steps=40, interval_steps=20))
    job = system.wait_phase("main", "SUCCEEDED", 90)
    figures = system.figures("main")
    assert_exact_ledger(figures, steps=40, sequences=24)
    assert figures[-1].loss < figures[0].loss - 1
    assert figures[-1].HasField("eval_loss")
    assert job.status.checkpoint.step == 40
    assert sum(job.status.goodput_s.values()) == pytest.approx(job.status.end_time_s - job.create_time_s, abs=0.01)
    listed = json.loads(system.cli("checkpoints", "list", "main", "-o", "json").stdout)
    assert [c["step"] for c in listed["checkpoints"]] == [20, 40]

    folder = tmp_path / "hf"
    system.cli("checkpoints", "export", "main", str(folder))
    assert "model.embed_tokens.weight" in tensors_of(folder)


def test_transformers_loads_and_generates_from_the_export(local: Local, corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    system = local(agents=1, slots=1)
    system.submit(tiny_job("one", corpus, steps=30, nodes=1, per_node=1))
    system.wait_phase("one", "SUCCEEDED", 60)
    system.cli("checkpoints", "export", "one", str(tmp_path / "hf"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokens = tokenizer("the 3th book", return_tensors="pt")["input_ids"]
    generated = model.generate(tokens, max_new_tokens=16, do_sample=False)
    assert str(tokenizer.decode(generated[0])).startswith("the 3th book")
    assert generated.shape == (1, tokens.shape[1] + 16)


def test_resume_after_cancel_on_another_number_of_workers(system: LocalSystem, corpus: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "checkpoints")
    first = tiny_job("first", corpus, steps=60, interval_steps=10)
    path = tmp_path / "first.yaml"
    path.write_text(first)
    system.cli("submit", "-f", str(path), "--set", f"spec.checkpoint.uri={uri}")
    system.wait("first", "a checkpoint", lambda job: job.status.checkpoint.step >= 20, 60)
    system.cli("cancel", "first", "-y", "--checkpoint")
    cancelled = system.wait_phase("first", "CANCELLED", 30)
    stopped_at = cancelled.status.checkpoint.step
    assert 20 <= stopped_at < 60

    path.write_text(tiny_job("second", corpus, steps=60, nodes=1, per_node=2, interval_steps=0))
    override = ("--set", f"spec.checkpoint.uri={uri}", "--set", "spec.checkpoint.resumeFrom=latest")
    system.cli("submit", "-f", str(path), *override)
    system.wait_phase("second", "SUCCEEDED", 60)
    figures = system.figures("second")
    assert [f.step for f in figures] == list(range(stopped_at + 1, 61))
    assert figures[0].cursor == 24 * (stopped_at + 1)


def test_two_jobs_share_the_nodes_one_waits_and_says_why(system: LocalSystem, corpus: Path) -> None:
    system.submit(tiny_job("a", corpus, steps=4000))
    system.wait_step("a", 1)
    system.submit(tiny_job("b", corpus, steps=5))
    assert system.job("b").status.phase == "QUEUED"
    assert "slot" in system.cli("explain", "b").stdout
    system.cli("cancel", "a", "-y")
    system.wait_phase("b", "SUCCEEDED", 60)


def test_workers_are_shown_with_rank_node_and_pid(system: LocalSystem, corpus: Path) -> None:
    system.submit(tiny_job("seen", corpus, steps=200))
    shown = workers(system.wait_step("seen", 2))
    assert sorted(shown) == [0, 1, 2, 3]
    assert len({w.pid for w in shown.values()}) == 4
    assert {w.node for w in shown.values()} == {"node-0", "node-1"}
    system.cli("cancel", "seen", "-y")
    system.wait_phase("seen", "CANCELLED", 30)
    ended = workers(system.job("seen"))
    assert {rank: w.node for rank, w in ended.items()} == {rank: w.node for rank, w in shown.items()}
    logs = system.cli("logs", "seen", "--rank", "2").stdout
    assert "entered" in logs
