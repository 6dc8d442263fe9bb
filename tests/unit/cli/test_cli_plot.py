"""Without it a plot could hide a recovery, break the terminal, or crash on a loss that is not finite."""

import io
import math
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from trainctl.cli.grammar.parser import build_parser
from trainctl.cli.main import main
from trainctl.cli.plot.curves import DEFAULT, METRICS, metrics_of, plot_of
from trainctl.cli.plot.text import Look, draw_text
from trainctl.cli.terminal.style import PLAIN, Style
from trainctl.core.errors import PreconditionError, UsageError
from trainctl.protos.v1.job_pb2 import Recovery
from trainctl.protos.v1.records_pb2 import StepFigures
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController


def figures(count: int, *, first: int = 1, seed: int = 0) -> list[StepFigures]:
    chance = random.Random(seed)
    found = []
    for step in range(first, first + count):
        one = StepFigures(step=step, loss=5 / step + chance.random() / 9, tokens=1000, step_s=0.5, learning_rate=1e-4)
        if step % 10 == 0:
            one.eval_loss = 6 / step
        found.append(one)
    return found


def recovery(step: int, fault: str = "worker 1 exited (SIGKILL)", lost: int = 0) -> Recovery:
    return Recovery(generation=2, fault=fault, rung="peer", target_step=step, lost_steps=lost, phases_s={"total": 0.7})


def lines(plot_lines: list[str]) -> str:
    return "\n".join(plot_lines)


def text(found: list[StepFigures], *, metric: str = "loss,eval_loss", columns: int = 60, rows: int = 10,
         ascii_only: bool = False, marks: tuple[Recovery, ...] = (), style: Style = PLAIN) -> list[str]:  # fmt: skip
    plot = plot_of("j: RUNNING", found, marks, metrics_of(metric))
    return draw_text(plot, Look(columns=columns, rows=rows, ascii_only=ascii_only, style=style))


def test_a_falling_curve_falls() -> None:
    drawn = text(figures(50), metric="loss", ascii_only=True, columns=70, rows=12)
    rows = [line.partition("|")[2] for line in drawn if "|" in line]
    assert len(rows) == 12
    assert rows[0].startswith("*")
    assert rows[-1].rstrip().endswith("*")
    least = [
        min((row for row in range(12) if rows[row][column : column + 1] == "*"), default=99) for column in range(50)
    ]
    assert least[0] < least[5] < least[20]


def test_every_recovery_is_marked_where_it_was_and_described() -> None:
    drawn = text(figures(100), marks=(recovery(30), recovery(80, "agent lost", lost=4)), columns=110)
    axis = next(line for line in drawn if "└" in line)
    first, second = axis.index("1"), axis.index("2")
    assert (second - first) / 100 == pytest.approx(0.5, abs=0.03)
    assert all(line[first] in "┊●" or line[first] >= "\u2800" for line in drawn if "│" in line and len(line) > first)
    assert "1  after step 30: worker 1 exited (SIGKILL) → peer: 0.7 s, nothing lost" in drawn
    assert "2  after step 80: agent lost → peer: 0.7 s, 4 steps lost" in drawn


@given(
    count=st.integers(1, 400),
    columns=st.integers(1, 250),
    rows=st.integers(-5, 40),
    ascii_only=st.booleans(),
    values=st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1, max_size=60),
)
def test_whatever_the_numbers_and_the_terminal_nothing_breaks_and_nothing_is_too_wide(
    count: int, columns: int, rows: int, ascii_only: bool, values: list[float]
) -> None:
    found = [StepFigures(step=step + 1, loss=values[step % len(values)], tokens=5, step_s=0.1) for step in range(count)]
    shown = [value for value in values[:count] if math.isfinite(value)]
    marks = (recovery(0), recovery(count), recovery(count + 50))
    if not shown:
        with pytest.raises(PreconditionError, match="nothing to draw"):
            text(found, metric="loss", columns=columns, rows=rows)
        return
    drawn = text(found, metric="loss", columns=columns, rows=rows, ascii_only=ascii_only, marks=marks)
    assert all(len(line) <= max(columns, 30) for line in drawn if re.match(r" {8}  ?[|│└+]", line))
    assert not ascii_only or all(line.isascii() for line in drawn)


def test_ascii_where_the_terminal_has_nothing_else(environment: dict[str, str], controller: FakeController) -> None:
    controller.add_job("a", step=40, total_steps=50)
    controller.figures = figures(40)
    command = [sys.executable, "-m", "trainctl.cli", "plot", "a"]
    for encoding, word in (("ascii", "*"), ("utf-8", "●")):
        env = {**environment, "PYTHONIOENCODING": encoding, "COLUMNS": "90", "PYTHONPATH": ":".join(sys.path)}
        done = subprocess.run(command, env=env, capture_output=True, timeout=60, check=True)
        shown = done.stdout.decode(encoding)
        assert word in shown
        assert "?" not in shown
        assert max(map(len, shown.splitlines())) <= 90


def test_colours_only_where_they_are_wanted() -> None:
    plain, painted = (lines(text(figures(30), marks=(recovery(9),), style=Style(enabled=on))) for on in (False, True))
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d+m", "", painted) == plain
    assert "\x1b[31m" in painted


def test_plot_in_the_terminal(cli: Cli, controller: FakeController) -> None:
    job = controller.add_job("a", "SUCCEEDED", step=25, total_steps=25)
    job.status.recoveries.append(recovery(12))
    controller.figures = figures(25)
    shown = cli("plot", "a")
    assert shown.code == 0
    assert shown.out.startswith("a: SUCCEEDED, step 25 of 25\n")
    loss, rate = (shown.out.index(label) for label in ("eval loss", "tokens per second"))
    assert loss < rate, "two panels, one below the other"
    axes = [line for line in shown.out.splitlines() if "└" in line or "+" in line]
    assert len(axes) == 2
    assert axes[0].index("1") == axes[1].index("1"), "the recovery is marked in both"
    assert shown.out.count("after step 12") == 1
    rates = cli("plot", "a", "--metric", "tokens_per_s").out
    assert "2k .. 2k" in rates
    assert "held-out" not in rates


def test_a_picture_shows_loss_and_throughput_with_a_line_for_each_recovery(
    cli: Cli, controller: FakeController, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    job = controller.add_job("a", step=25, total_steps=30)
    job.status.recoveries.extend([recovery(12), recovery(24)])
    controller.figures = figures(25)
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, _: drawn.append(figure))
    assert cli("plot", "a", "-o", str(tmp_path / "a.png")).code == 0
    (figure,) = drawn
    assert [axes.get_ylabel() for axes in figure.axes] == ["loss (nats per token)", "tokens per second"]
    for axes in figure.axes:
        assert [np.asarray(line.get_xdata())[0] for line in axes.lines if line.get_linestyle() == "--"] == [12, 24]
    assert [len(axes.texts) for axes in figure.axes] == [2, 0], "described once"


@pytest.mark.parametrize(
    ("wanted", "name", "magic"), [("png", "a.png", b"\x89PNG"), ("curves.svg", "curves.svg", b"<?xml")]
)
def test_a_picture(
    cli: Cli,
    controller: FakeController,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    wanted: str,
    name: str,
    magic: bytes,
) -> None:
    monkeypatch.chdir(tmp_path)
    job = controller.add_job("a", step=25, total_steps=30)
    job.status.recoveries.extend([recovery(12), recovery(24)])
    controller.figures = figures(25)
    done = cli("plot", "a", "-o", wanted, "--metric", "loss,tokens_per_s,step_s")
    assert (done.code, done.out) == (0, f"{name}\n")
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_what_cannot_be_drawn_is_said(cli: Cli, controller: FakeController, tmp_path: Path) -> None:
    controller.add_job("new")
    controller.add_job("old", "FAILED")
    nothing = cli("plot", "new")
    assert (nothing.code, nothing.out) == (6, "")
    assert "no step is committed yet" in nothing.err
    assert cli("plot", "nobody").code == 3
    controller.figures = figures(5)
    assert "none of its 5 steps has such a figure" in cli("plot", "old", "--metric", "eval_loss").err
    unknown = cli("plot", "old", "--metric", "loss,token_per_s")
    assert unknown.code == 2
    assert 'did you mean "tokens_per_s"?' in unknown.err
    assert cli("plot", "old", "--metric", ",").code == 2
    for wrong in ("curve.gif", "jpg", "."):
        assert cli("plot", "old", "-o", wrong).code == 2
    denied = cli("plot", "old", "-o", str(tmp_path / "nowhere" / "x.png"))
    assert denied.code == 5
    assert "cannot be written: No such file or directory" in denied.err


def test_without_matplotlib_the_command_to_install_it_is_said(
    environment: dict[str, str], controller: FakeController, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    controller.add_job("a")
    controller.figures = figures(5)
    err = io.StringIO()
    code = main(("plot", "a", "-o", str(tmp_path / "x.png")), out=io.StringIO(), err=err, env=environment)
    assert code == 6
    assert "pip install 'trainctl-orchestrator[plot]'" in err.getvalue()


def test_the_help_names_every_metric(cli: Cli) -> None:
    assert build_parser().parse_args(["plot", "a"]).metric == DEFAULT
    shown = " ".join(cli("plot", "--help").out.split())
    assert all(name in shown for name in METRICS)
    with pytest.raises(UsageError, match="no 'x'"):
        metrics_of("x")
