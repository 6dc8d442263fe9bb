"""Without it a loop under the session could differ from a plain loop, or misuse show in bad weights only."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import nn

from trainctl.core.errors import PlanError, PreconditionError
from trainctl.core.records.train_spec import BatchSpec
from trainctl.parallel.results import Hook
from trainctl.parallel.session import Session
from trainctl.parallel.session.oddities import Oddities
from trainctl.parallel.session.reporter import Reporter
from trainctl.parallel.session.seat import Seat


def build(*, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 11), nn.Tanh(), nn.Linear(11, 3)).to(dtype)
    return model, torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.1)


def loss_of(model: nn.Module, ids: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, int]:
    rows = torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(i), dtype=dtype) for i in ids])
    return (model(rows) - rows[:, :3].sin()).square().sum(), 3 * len(ids)


class Counts:
    """What a loop has of its own."""

    def __init__(self) -> None:
        self.total = 0

    def state_dict(self) -> dict[str, int]:
        return {"total": self.total}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.total = state["total"]


def open_session(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> Session:
    session = Session.open()
    session.register(model=model, optimizer=optimizer)
    session.set_data(
        num_samples=50,
        steps=steps,
        batch=BatchSpec(sequences=8, micro_batches=4),
        seed=3,
        schedule=lambda step: 0.01 * step,
        clip_norm=0.5,
    )
    return session


def test_alone_it_equals_a_plain_loop() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)
    batches: list[tuple[int, ...]] = []
    while not session.done:
        with session.step() as step:
            ids: tuple[int, ...] = ()
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(model, micro_batch.sample_ids))
                ids += micro_batch.sample_ids
            batches.append(ids)
    assert session.applied_step == 5
    assert [len(ids) for ids in batches] == [8] * 5

    plain, plain_optimizer = build()
    for number, ids in enumerate(batches, start=1):
        plain_optimizer.zero_grad()
        loss, tokens = loss_of(plain, ids)
        (loss / tokens).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        plain_optimizer.param_groups[0]["lr"] = 0.01 * number
        plain_optimizer.step()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_what_is_due_between_two_steps_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop asks at the end of a step, and again where it begins the next."""
    boundaries: list[int] = []
    send = Reporter.send

    def sent(reporter: Reporter, seat: Seat) -> None:
        boundaries.append(session.applied_step)
        send(reporter, seat)

    monkeypatch.setattr(Reporter, "send", sent)
    model, optimizer = build()
    session = open_session(model, optimizer, steps=3)
    while not session.done:
        with session.step() as step:
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(model, micro_batch.sample_ids))
    assert boundaries == [0, 1, 2, 3]


def test_a_non_finite_loss_skips_the_step_and_commits_it() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer, steps=2)
    before = [parameter.clone() for parameter in model.parameters()]
    with session.step() as step:
        for micro_batch in step.micro_batches():
            loss, tokens = loss_of(model, micro_batch.sample_ids)
            step.backward(loss * math.nan if micro_batch.index == 2 else loss, tokens)
    assert session.applied_step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_step_with_micro_batches_left_out_is_skipped() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer, steps=2)
    before = [parameter.clone() for parameter in model.parameters()]
    with session.step() as step:
        for micro_batch in step.micro_batches():
            step.backward(*loss_of(model, micro_batch.sample_ids))
            break
    assert session.applied_step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_loop_that_goes_past_the_session_fails_at_once() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)

    def past_the_session() -> None:
        with session.step() as step:
            for micro_batch in step.micro_batches():
                loss, _ = loss_of(model, micro_batch.sample_ids)
                loss.backward()  # type: ignore[no-untyped-call]

    with pytest.raises(PreconditionError, match=r"no rank called step\.backward") as caught:
        past_the_session()
    assert "not loss.backward()" in caught.value.hint


@pytest.mark.parametrize("tokens", [-3, 2.5, math.nan, True])
def test_a_number_of_targets_that_is_none_is_refused(tokens: float) -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)
    with session.step() as step:
        micro_batch = next(iter(step.micro_batches()))
        loss, targets = loss_of(model, micro_batch.sample_ids)
        with pytest.raises(PreconditionError, match="expected the number of targets"):
            step.backward(loss, tokens)  # type: ignore[arg-type]
        step.backward(loss, targets)


def test_a_parameter_group_that_comes_late_is_found_in_the_next_step() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)
    with session.step() as step:
        for micro_batch in step.micro_batches():
            step.backward(*loss_of(model, micro_batch.sample_ids))
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(3, dtype=torch.float64))]})
    with pytest.raises(PlanError, match="as registered, found"), session.step():
        pass


def test_a_step_inside_a_step_is_refused() -> None:
    session = open_session(*build())
    with pytest.raises(PreconditionError, match="inside another"), session.step(), session.step():
        pass


@pytest.mark.parametrize("what", ["register", "set_data", "on_evaluate", "add_hook"])
def test_nothing_is_registered_after_the_first_step(what: str) -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)
    with session.step() as step:
        for micro_batch in step.micro_batches():
            step.backward(*loss_of(model, micro_batch.sample_ids))
    calls: dict[str, Callable[[], None]] = {
        "register": lambda: session.register(model=model, optimizer=optimizer),
        "set_data": lambda: session.set_data(num_samples=1, steps=1, batch=BatchSpec(), seed=0),
        "on_evaluate": lambda: session.on_evaluate(every=1, num_items=1, evaluate=lambda item: (1.0, 1)),
        "add_hook": lambda: session.add_hook(Hook),
    }
    with pytest.raises(PreconditionError, match=f"{what} was called after the first step"):
        calls[what]()
    assert session.applied_step == 1


def test_evaluation_runs_when_due() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)
    seen: list[int] = []

    def evaluate(item: int) -> tuple[float, int]:
        seen.append(item)
        return 1.0, 2

    session.on_evaluate(every=2, num_items=3, evaluate=evaluate)
    while not session.done:
        with session.step() as step:
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(model, micro_batch.sample_ids))
    assert seen == [0, 1, 2, 0, 1, 2]


def test_missing_registration_says_what_to_call() -> None:
    with pytest.raises(PreconditionError, match=r"register\(\) and set_data\(\)"), Session.open().step():
        pass


def test_backward_outside_a_micro_batch_is_an_error() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)
    with pytest.raises(PreconditionError, match="backward was called"), session.step() as step:
        step.backward(*loss_of(model, (1,)))


def test_replaced_gradients_are_found() -> None:
    model, optimizer = build()
    session = open_session(model, optimizer)

    def own_zero_grad() -> None:
        with session.step() as step:
            optimizer.zero_grad()
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(model, micro_batch.sample_ids))

    with pytest.raises(PlanError, match="session's gradient"):
        own_zero_grad()


def test_half_precision_parameters_are_refused() -> None:
    model, optimizer = build(dtype=torch.bfloat16)
    with pytest.raises(PlanError, match="float32 or float64"):
        Session.open().register(model=model, optimizer=optimizer)


def test_a_loop_that_catches_what_left_its_step_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(Session, "notice", lambda _, text: told.append(text))
    model, optimizer = build()
    session = open_session(model, optimizer, steps=2)
    for _ in range(12):
        with contextlib.suppress(ValueError), session.step():
            raise ValueError("no such sample")
    assert session.applied_step == 0
    first, tenth = told
    assert "step 1 is begun again" in first
    assert "ValueError: no such sample" in first
    assert "by now 10 times" in tenth
    with session.step() as step:
        for micro_batch in step.micro_batches():
            step.backward(*loss_of(model, micro_batch.sample_ids))
    assert session.applied_step == 1, "the step that was left can still be done"


@pytest.mark.parametrize(
    ("rank", "ranks", "micro_batches", "told"), [(0, 6, 4, 1), (1, 6, 4, 0), (0, 4, 4, 0), (0, 1, 7, 0)]
)
def test_workers_without_a_micro_batch_are_told_once(rank: int, ranks: int, micro_batches: int, told: int) -> None:
    notices: list[str] = []
    Oddities(notices.append).entered(rank=rank, ranks=ranks, micro_batches=micro_batches)
    assert [notice[:33] for notice in notices] == ["2 of 6 workers have nothing to do"] * told


def test_a_turn_after_the_last_step_counts_for_nothing() -> None:
    """As when the last step was applied, and the generation ended before the run did: the loop has one turn more."""
    model, optimizer = build()
    counts = Counts()
    session = Session.open()
    session.register(model=model, optimizer=optimizer, objects={"counts": counts})
    session.set_data(num_samples=50, steps=2, batch=BatchSpec(sequences=8, micro_batches=4), seed=3)
    turns = 0
    while turns < 3:
        with session.step() as step:
            counts.total += 1
            for micro_batch in step.micro_batches():
                step.backward(*loss_of(model, micro_batch.sample_ids))
        turns += 1
    assert session.done
    assert session.applied_step == counts.total == 2
