"""Without it `trainctl local` could leave processes behind, kill those of others, or delete what is not its own."""

import io
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from trainctl.cli.commands import local as local_commands
from trainctl.cli.local import folder
from trainctl.cli.local import start as starting
from trainctl.cli.local import stop as stopping
from trainctl.cli.local.start import LocalPlan, controller_command
from trainctl.cli.main import main
from trainctl.controller.run_dir import RunDir
from trainctl.core.errors import PreconditionError
from trainctl.core.system.processes import ProcessId, wait_for_end
from trainctl.core.system.run_folder import read_agents, read_controller
from unit.cli.conftest import Result

Local = Callable[..., Result]
FAKE = Path(__file__).with_name("fake_local.py")


def fake_command(plan: LocalPlan) -> Sequence[str]:
    return [sys.executable, str(FAKE), *controller_command(plan)[3:]]


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Local]:
    monkeypatch.setattr(starting, "controller_command", fake_command)
    monkeypatch.setattr(stopping, "AGENT_GRACE_S", 0.3)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    env = {"TRAINCTL_HOME": str(tmp_path), "TRAINCTL_CONFIG": ""}

    def run(*arguments: str) -> Result:
        out, err = io.StringIO(), io.StringIO()
        code = main(("local", *arguments), out=out, err=err, env=env)
        return Result(code, out.getvalue(), err.getvalue())

    yield run
    monkeypatch.setattr(stopping, "AGENT_GRACE_S", 0.0)
    run("down")


def processes(run_dir: Path) -> list[ProcessId]:
    controller = read_controller(run_dir)
    agents = [agent.process for agent in read_agents(run_dir) if agent.alive]
    return [*([controller.process] if controller is not None and controller.alive else []), *agents]


def test_the_real_command_line(tmp_path: Path) -> None:
    command = controller_command(LocalPlan(run_dir=tmp_path, agents=3, slots=4, port=7070))
    assert command[:3] == [sys.executable, "-m", "trainctl.controller"]
    assert command[3:] == ["--dir", str(tmp_path), "--agents", "3", "--slots", "4", "--listen", "127.0.0.1:7070"]
    restored = controller_command(LocalPlan(run_dir=tmp_path, agents=1, slots=1, tls=True, accept_store=True))
    assert restored[-2:] == ["--tls", "--accept-store"]


def test_a_store_is_accepted_through_the_command(tmp_path: Path) -> None:
    seen: list[LocalPlan] = []

    def noted(plan: LocalPlan, *, say: Callable[[str], None]) -> None:
        seen.append(plan)
        raise PreconditionError("that is all")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_commands, "start", noted)
        env = {"TRAINCTL_HOME": str(tmp_path), "TRAINCTL_CONFIG": ""}
        for arguments in (("local", "up"), ("local", "up", "--accept-store")):
            main(arguments, out=io.StringIO(), err=io.StringIO(), env=env)
    assert [plan.accept_store for plan in seen] == [False, True]
    assert ["--accept-store" in controller_command(plan) for plan in seen] == [False, True]


def test_up_status_down_and_up_again(local: Local, tmp_path: Path) -> None:
    run_dir = tmp_path / "local"
    up = local("up")
    assert up.code == 0, up.err
    assert "with 2 agents of 2 slots each" in up.out
    assert "trainctl submit" in up.err
    assert len(processes(run_dir)) == 3
    assert run_dir.stat().st_mode & 0o777 == 0o700
    controller = read_controller(run_dir)
    assert controller is not None
    assert os.getsid(controller.process.pid) == controller.process.pid

    status = local("status")
    assert status.code == 0
    assert all(word in status.out for word in ("running", "node-0", "node-1", "kept", controller.address))
    assert json.loads(local("status", "-o", "json").out)["controller"]["state"] == "running"

    again = local("up")
    assert again.code == 4
    assert f"process {controller.process.pid} at {controller.address}" in again.err
    assert "local down" in again.err

    down = local("down")
    assert down.code == 0
    assert down.out == "stopped the controller and 2 agents\n"
    assert not processes(run_dir)
    twice = local("down")
    assert (twice.code, twice.out) == (0, f"nothing was running in {run_dir}\n")
    stopped = local("status")
    assert stopped.code == 7
    assert "not running" in stopped.out
    assert "local up" in stopped.err
    assert local("up", "--agents", "1").code == 0


def test_dead_controller_is_started_again_and_down_finds_its_agents(local: Local, tmp_path: Path) -> None:
    run_dir = tmp_path / "local"
    assert local("up", "--agents", "1").code == 0
    controller, *_ = processes(run_dir)
    os.kill(controller.pid, signal.SIGKILL)
    os.waitpid(controller.pid, 0)
    left = processes(run_dir)
    assert len(left) == 1
    assert local("status").code == 7
    assert "1 agent" in local("down").out
    assert not wait_for_end(left, 5)


def test_down_kills_what_does_not_end(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_MODE", "stubborn")
    assert local("up", "--agents", "1").code == 0
    down = local("down")
    assert down.code == 0
    assert "(1 had to be killed)" in down.out


def test_down_touches_no_process_that_only_has_the_pid(local: Local, tmp_path: Path) -> None:
    run_dir = tmp_path / "local"
    (run_dir / "nodes" / "node-0").mkdir(parents=True)
    mine = json.dumps({"pid": os.getpid(), "start_ticks": 1, "address": "127.0.0.1:1"})
    (run_dir / "controller.json").write_text(mine)
    (run_dir / "nodes" / "node-0" / "agent.json").write_text(mine)
    assert local("down").out.startswith("nothing was running")


@pytest.mark.parametrize(
    ("mode", "code", "words"),
    [
        ("crash", 7, "the store is damaged"),
        ("port", 4, "the port is taken"),
        ("agentless", 7, "node-1: error: expected TLS"),
    ],
)
def test_failed_start_shows_the_log_and_leaves_nothing_running(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, code: int, words: str
) -> None:
    monkeypatch.setenv("FAKE_MODE", mode)
    monkeypatch.setattr(starting, "DEADLINE_S", 3.0)
    failed = local("up")
    assert failed.code == code
    assert words in failed.err
    assert "controller.log" in failed.err
    assert not processes(tmp_path / "local")


def test_a_start_that_is_refused_is_told_in_the_controllers_own_words(
    local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODE", "word")
    refused = local("up")
    assert refused.code == 6
    assert "error: the controller did not start: it is old: (STORE_OLD)\nvery\nhint: take another\n" in refused.err
    assert "nobody reads this" not in refused.err
    monkeypatch.setenv("FAKE_MODE", "wordless")
    other = local("up")
    assert other.code == 6
    assert "very" not in other.err, "that was the life before"
    assert "nothing of this life but these" in other.err


def test_port_that_is_taken(local: Local, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = local("up", "--port", str(port))
    assert result.code == 4
    assert f"port {port} on 127.0.0.1 is taken" in result.err
    assert not processes(tmp_path / "local")


def test_chosen_folder_and_port(local: Local, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    up = local("up", "--agents", "1", "--dir", str(tmp_path / "mine"), "--port", str(port))
    assert up.code == 0, up.err
    assert f"TRAINCTL_ADDRESS=127.0.0.1:{port}" in up.err
    assert local("status", "--dir", str(tmp_path / "mine")).code == 0
    again = local("up", "--dir", str(tmp_path / "mine"))
    assert f"`trainctl local down --dir {tmp_path}/mine` stops it" in again.err
    controller = processes(tmp_path / "mine")[0]
    here = ("--address", f"127.0.0.1:{port}", "--token-file", str(tmp_path / "mine" / "token"))
    assert str(tmp_path / "mine") in local("status", *here).out
    os.kill(controller.pid, signal.SIGKILL)
    os.waitpid(controller.pid, 0)
    assert local("status", *here).err.endswith(f"start it with: trainctl local up --dir {tmp_path}/mine\n")
    out, err = io.StringIO(), io.StringIO()
    assert main(("get", "jobs", *here), out=out, err=err, env={"TRAINCTL_HOME": str(tmp_path)}) == 7
    assert f"with all its jobs: trainctl local up --dir {tmp_path}/mine" in err.getvalue()
    assert local("down", "--dir", str(tmp_path / "mine"), "--purge", "-y").code == 0
    assert not (tmp_path / "mine").exists()


def test_folder_that_cannot_be_used(local: Local, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    assert local("up", "--dir", str(tmp_path / "file")).code == 2
    assert local("up", "--dir", str(tmp_path / "file" / "below")).code == 2

    def refuse(self: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused = local("up", "--dir", str(tmp_path / "theirs"))
    assert refused.code == 5
    assert "Permission denied" in refused.err
    assert "--dir" in refused.err


def test_two_at_once(local: Local, tmp_path: Path) -> None:
    run_dir = tmp_path / "local"
    run_dir.mkdir()
    with folder.locked(run_dir):
        assert local("up").code == 4
        assert local("down").code == 4


def test_purge_deletes_all_that_a_controller_leaves(tmp_path: Path) -> None:
    # What stayed would be held against the next installation in this folder.
    paths = RunDir(tmp_path / "run")
    paths.root.mkdir()
    names = [name for name, value in vars(RunDir).items() if isinstance(value, property)]
    for name in names:
        getattr(paths, name).write_text("")
    assert paths.sighting_file.exists()
    folder.purge(paths.root)
    assert not paths.root.exists()


def test_purge_only_deletes_what_is_ours(local: Local, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    with pytest.raises(PreconditionError):
        folder.purge(foreign)
    (foreign / "jobs").mkdir()
    (foreign / "store.sqlite3.lock").write_text("")
    (foreign / "token").write_text("")
    folder.purge(foreign)
    assert [path.name for path in foreign.iterdir()] == ["thesis.tex"]
    assert local("down", "--dir", str(tmp_path / "nothing")).code == 0
