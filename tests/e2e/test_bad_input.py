"""Bad input by a user's hand: one clear error with a hint, the right exit code, nothing half-started, no hang.

Without it a typing error could leave half a job, hang a terminal, or show people a traceback.
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import yaml

from e2e.local_system import LocalSystem, tiny_job
from e2e.process_tree import processes_of
from trainctl.protos.status import error_from_rpc
from trainctl.protos.v1 import job_pb2

pytestmark = pytest.mark.e2e
Done = subprocess.CompletedProcess[str]


def assert_one_error(done: Done, exit_code: int, *words: str, hint: bool = True) -> None:
    text = done.stderr
    assert done.returncode == exit_code, text
    assert [line.startswith("error: ") for line in text.splitlines()].count(True) == 1, text
    assert text.count("\nhint: ") == (1 if hint else 0), text
    assert "Traceback" not in text
    assert "internal error" not in text
    assert len(text) < 8000
    assert done.stdout == ""
    for word in words:
        assert word in text


@pytest.fixture
def submit(system: LocalSystem, tmp_path: Path) -> Iterator[Callable[..., Done]]:
    """Submits a text that must be refused; afterwards there are the jobs that there were."""
    before = system.cli("get", "jobs", "-o", "name").stdout

    def submit(content: str | bytes, *arguments: str) -> Done:
        path = tmp_path / "job.yaml"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return system.cli("submit", "-f", str(path), *arguments, check=False, timeout_s=20)

    yield submit
    assert system.cli("get", "jobs", "-o", "name").stdout == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("metadata.tenant=a/b", ["metadata.tenant", "at most 63 small letters"]),
        ("spec.checkpoint.uri=foo://bar/x", ["spec.checkpoint.uri", "foo"]),
        ("spec.checkpoint.uri=/proc/x", ["spec.checkpoint.uri", "cannot be written"]),
        ("spec.train.stepz=3", ["spec.train.stepz", 'did you mean "steps"']),
        ("spec.train.steps=many", ["whole number", '"many"']),
        ("spec.nodes.min=5", ["5 is greater than spec.nodes.max (2)"]),
        ("spec.train.batch.microBatches=3", ["3 micro-batches", "4 workers"]),
        ("spec.train.data.uri=/nowhere/at-all", ["/nowhere/at-all does not exist"]),
        ("spec.checkpoint.resumeFrom=/nowhere/at-all", ["holds no complete checkpoint"]),
        ("spec.checkpoint.resumeFrom=foo://bar/x", ["foo", "spec.checkpoint.resumeFrom"]),
        ('spec.env={A: "a\\0b"}', ["spec.env.A", "zero byte"]),
    ],
)
def test_a_bad_field_is_named(submit: Callable[..., Done], corpus: Path, override: str, words: list[str]) -> None:
    assert_one_error(submit(tiny_job("bad", corpus), "--set", override), 2, "(SPEC_INVALID)", *words)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 11)
)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (BOMB, ["aliases expand"]),
        ("a: &a [*a]\n", ["aliases expand"]),
        ("# " + "x" * 10_000_000, ["256 KiB"]),
        ("[" * 5000, ["nested deeper"]),
        (b"\x7fELF\x02\x01\x01\x00\xd0\xff", ["binary"]),
        ("kind: TrainJob\n\0", ["zero byte"]),
        ('"\\e[31mred": 1\n', ["\\x1b[31mred: unknown field"]),
        ("".join(f"k{i}: 1\n" for i in range(5000)), ["and 49"]),
        ("k" * 500 + ": 1\n", ["kkk...: unknown field"]),
        ("kind: !!python/object/apply:os.system ['false']\n", ["kind"]),
        ("", ["empty"]),
    ],
    ids=["bomb", "loop", "large", "deep", "binary", "nul", "escape", "many", "long-key", "tag", "empty"],
)
def test_a_hostile_file_is_refused(submit: Callable[..., Done], content: str | bytes, words: list[str]) -> None:
    done = submit(content)
    assert_one_error(done, 2, "(SPEC_INVALID)", *words)
    assert "\x1b" not in done.stderr


@pytest.fixture(scope="module")
def checkpoint(system: LocalSystem, corpus: Path) -> Path:
    system.submit(tiny_job("saved", corpus, steps=4, nodes=1))
    return Path(system.wait_phase("saved", "SUCCEEDED", 60).status.checkpoint.uri)


def test_checkpoints_that_cannot_be_resumed_from(
    submit: Callable[..., Done], corpus: Path, checkpoint: Path, tmp_path: Path
) -> None:
    def resume(uri: Path) -> Done:
        return submit(tiny_job("resumed", corpus, steps=4), "--set", f"spec.checkpoint.resumeFrom={uri}")

    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "manifest.json").write_text('{"weights": 1}')
    torn = shutil.copytree(checkpoint, tmp_path / "torn")
    os.truncate(torn / "manifest.json", 100)
    assert_one_error(resume(foreign), 2, "is foreign")
    assert_one_error(resume(corpus), 2, "is foreign")
    assert_one_error(resume(torn), 2, "is torn")
    assert_one_error(resume(checkpoint), 2, "is of step 4, but spec.train.steps is 4")
    larger = tiny_job("resumed", corpus, steps=8, model={"layers": 3, "hidden": 128, "heads": 4, "context": 64})
    done = submit(larger, "--set", f"spec.checkpoint.resumeFrom={checkpoint}")
    assert_one_error(done, 2, "spec.train.model.layers", "was saved with 2, found 3", "was saved with 64, found 128")


def test_a_checkpoint_of_another_vocabulary_fails_the_job_briefly(
    system: LocalSystem, corpus: Path, checkpoint: Path
) -> None:
    other = yaml.safe_load(tiny_job("shape", corpus, steps=8, nodes=1))
    other["spec"]["train"]["tokenizer"] = {"kind": "bpe", "vocabSize": 300}
    other["spec"]["checkpoint"]["resumeFrom"] = str(checkpoint)
    path = system.run_dir.parent / "shape.yaml"
    path.write_text(yaml.safe_dump(other))
    done = system.cli("submit", "-f", str(path), "--wait", check=False)
    assert done.returncode == 8
    message = system.job("shape").status.error.message
    assert "does not fit" in message
    assert "expected shape [300, 64], found [256, 64]" in message
    assert len(message.splitlines()) < 10


def test_a_name_in_use(system: LocalSystem, corpus: Path) -> None:
    system.submit(tiny_job("twice", corpus, steps=100_000, nodes=1))
    system.wait_phase("twice", "RUNNING")
    done = system.cli("submit", "-f", str(system.run_dir.parent / "job.yaml"), check=False)
    assert_one_error(done, 4, "'twice' exists", "trainctl cancel twice", "request-id: ")
    assert_one_error(system.cli("cancel", "twice", check=False), 2, "there is no terminal to ask on", "say so with -y")
    system.cli("cancel", "twice", "-y")
    system.wait_phase("twice", "CANCELLED", 30)
    assert system.cli("get", "jobs", "-o", "name").stdout.split().count("twice") == 1


def test_things_that_do_not_exist(system: LocalSystem, tmp_path: Path) -> None:
    reading = (["get", "job"], ["describe"], ["explain"], ["logs"], ["events"], ["checkpoints", "list"])
    for command in (*reading, ["cancel"], ["delete"]):
        assert_one_error(system.cli(*command, "nobody", check=False), 3, "no job 'nobody'")
    assert_one_error(system.cli("submit", "-f", str(tmp_path / "none.yaml"), check=False), 3, "does not exist")


def test_wrong_token_wrong_version_and_garbage(system: LocalSystem, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("nonsense\n")
    done = system.cli("get", "jobs", "--token-file", str(token), check=False)
    assert_one_error(done, 5, "UNAUTHENTICATED", "--token-file")
    for wire in ("2", "x"):
        channel, stub = system.stub()
        with channel, pytest.raises(grpc.RpcError) as caught:
            stub.ListJobs(
                job_pb2.ListJobsRequest(), timeout=10, metadata=(system.metadata[0], ("x-trainctl-wire", wire))
            )
        error = error_from_rpc(caught.value)
        assert (error.code, error.exit_code) == ("VERSION_MISMATCH", 6)
        assert "trainctl version" in error.hint
    host, _, port = system.controller["address"].rpartition(":")
    for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", os.urandom(100_000)):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            try:
                connection.sendall(garbage)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                continue  # it hung up on us, as it should
    assert system.cli("local", "status").returncode == 0
    done = system.cli("get", "jobs", "--address", system.controller["metrics_address"], "--timeout", "2s", check=False)
    assert_one_error(done, 7, "no controller answers")


def test_second_local_up(system: LocalSystem) -> None:
    before = {p.pid for p in processes_of(system.run_dir)}
    done = system.cli("local", "up", "--dir", str(system.run_dir), check=False)
    assert_one_error(done, 4, "runs already", str(system.controller["pid"]), "trainctl local down")
    assert {p.pid for p in processes_of(system.run_dir)} == before


@pytest.fixture
def idle(tmp_path: Path) -> LocalSystem:
    """An installation that was never started."""
    return LocalSystem(tmp_path / "home" / "local")


def test_controller_not_running(idle: LocalSystem) -> None:
    assert_one_error(idle.cli("get", "jobs", check=False), 7, "trainctl local up")
    assert_one_error(idle.cli("get", "jobs", "--address", "127.0.0.1:1", check=False), 7, "127.0.0.1:1")
    assert_one_error(idle.cli("get", "jobs", "--address", "127.0.0.1:70000", check=False), 2, "HOST:PORT")
    assert not idle.run_dir.parent.exists()


def test_port_taken(idle: LocalSystem) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = idle.cli("local", "up", "--port", port, "--dir", str(idle.run_dir), check=False)
    assert_one_error(done, 4, port, "--port")
    assert not idle.run_dir.exists()
    assert processes_of(idle.run_dir) == []


def test_no_permission_in_the_work_folder(idle: LocalSystem, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder, code in ((tmp_path / "file" / "x", 2), (Path("/proc/trainctl"), 5)):
        done = idle.cli("local", "up", "--dir", str(folder), check=False)
        assert_one_error(done, code, "--dir")
    assert processes_of(idle.run_dir) == []


def test_purge_refuses_a_folder_that_is_none_of_ours(idle: LocalSystem, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    (foreign / "jobs").mkdir(parents=True)
    (foreign / "jobs" / "precious").write_text("x")
    done = idle.cli("local", "down", "--purge", "-y", "--dir", str(foreign), check=False)
    assert_one_error(done, 6, "nothing was deleted")
    assert sorted(p.name for p in foreign.rglob("*")) == ["jobs", "precious"]


def test_damaged_files_of_the_installation(idle: LocalSystem) -> None:
    idle.run_dir.mkdir(parents=True)
    store = idle.run_dir / "store.sqlite3"
    store.write_bytes(os.urandom(8192))
    done = idle.cli("local", "up", "--agents", "1", "--dir", str(idle.run_dir), check=False)
    assert_one_error(done, 6, "STORE_CORRUPT", "move the file away")
    done = idle.cli("get", "jobs", check=False)
    assert_one_error(done, 7, "none runs in", "STORE_CORRUPT", "move the file away", "trainctl local up")
    assert processes_of(idle.run_dir) == []
    store.unlink()
    (idle.run_dir / "token").write_text("")
    done = idle.cli("local", "up", "--agents", "1", "--dir", str(idle.run_dir), check=False)
    assert_one_error(done, 6, "token is empty")
    for content in ("", "{", "[]", json.dumps({"pid": "x"})):
        (idle.run_dir / "controller.json").write_text(content)
        done = idle.cli("get", "jobs", check=False)
        assert_one_error(done, 6, "controller.json is damaged", "delete it")
    assert processes_of(idle.run_dir) == []


def test_what_destroys_is_not_done_without_a_yes(system: LocalSystem) -> None:
    asked = system.cli("local", "down", "--purge", "--dir", str(system.run_dir), check=False)
    assert_one_error(asked, 2, "there is no terminal to ask on", "say so with -y")
    assert_one_error(system.cli("local", "down", "--dir", "", check=False), 2, "--dir: expected a folder")
    assert_one_error(system.cli("logs", "anything", "--tail", "3000000000", check=False), 2, "--tail: expected 1 to")
    assert system.nodes()


def test_a_demo_where_no_folder_can_be(system: LocalSystem, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_one_error(system.cli("demo", "--dir", str(tmp_path / "file"), check=False), 2, "a folder was expected")
