"""One checkpoint: described and verified where it lies, removed and pinned through the controller.

Without it a checkpoint that somebody pinned could be removed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.core.errors import PermissionDeniedError, PreconditionError
from trainctl.protos.convert import record_to_message
from trainctl.protos.v1.job_pb2 import (
    AcceptCheckpointRequest,
    DeleteCheckpointRequest,
    PinCheckpointRequest,
    RefuseCheckpointRequest,
    RefusedCheckpoint,
)
from trainctl.protos.v1.records_pb2 import CheckpointRef
from unit.checkpoint.ranks import at_step, attempt, full_values, save
from unit.cli.answering import answer, sent
from unit.cli.conftest import Cli
from unit.cli.fake_controller import FakeController


@pytest.fixture
def saved(controller: FakeController, tmp_path: Path) -> list[CheckpointRef]:
    """Two checkpoints of job a on disk, the second continues the first."""
    first = save(tmp_path / "c", at_step(full_values(), 10), of=attempt(10), artifacts={"config.json": b"{}"})
    second = save(tmp_path / "c", at_step(full_values(), 20), of=attempt(20), parent=first)
    controller.add_job("a")
    controller.checkpoints = [record_to_message(ref, CheckpointRef) for ref in (first, second)]
    for ref in controller.checkpoints:
        ref.committed_s = 1e9
    return controller.checkpoints


def test_describe_shows_the_manifest_and_what_a_rollback_takes(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    controller.rollback_uri = saved[0].uri
    controller.pinned = {saved[0].uri}
    newest = json.loads(cli("checkpoints", "describe", "a", "-o", "json").out)
    older = json.loads(cli("checkpoints", "describe", "a", "--step", "10", "-o", "json").out)
    assert (newest["step"], newest["lineage"], newest["uri"]) == (20, 1, saved[1].uri)
    assert newest["parent"] == {"job": "job-a", "step": 10, "attempt": saved[0].attempt}
    assert (older["parent"], older["pinned"], older["rollbackTarget"]) == (None, True, True)
    assert (newest["pinned"], newest["rollbackTarget"]) == (False, False)
    sizes = {file["path"]: file["sizeBytes"] for file in older["files"]}
    root = Path(saved[0].uri)
    assert sizes == {path: (root / path).stat().st_size for path in sizes}
    assert "artifacts/config.json" in sizes
    assert older["sizeBytes"] == sum(sizes.values())
    text = cli("checkpoints", "describe", "a", "--step", "10").out
    for word in ("10 in lineage 1", "`trainctl rollback a` takes this one", "2001-09-09", saved[0].uri, "config.json"):
        assert word in text

    def refuse(method: str) -> None:
        if method == "ListCheckpoints":  # then comes the question about a roll-back
            controller.failures.append(PreconditionError("it has ended"))

    controller.on_call = refuse
    assert json.loads(cli("checkpoints", "describe", "a", "-o", "json").out)["rollbackTarget"] is False
    controller.on_call = lambda method: None
    missing = cli("checkpoints", "describe", "a", "--step", "11")
    assert missing.code == 3
    assert "no checkpoint of step 11; it has 10, 20" in missing.err


def test_describe_shows_the_loads_of_this_checkpoint(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    job = controller.jobs["a"]
    for generation, uri in ((2, saved[1].uri), (3, saved[0].uri)):
        load = job.status.loads.add(
            generation=generation, step=20, uri=uri, seconds=2.5, ranks=1, data_bytes=100, moved_bytes=120,
            bottleneck="read of rank 0 on file: 2.00 s (60 B/s)", healed_reads=3,
        )  # fmt: skip
        load.parts.add(rank=0, data_bytes=100, moved_bytes=120, seconds={"read": 2.0, "verify": 0.5}, healed_reads=3)
    text = cli("checkpoints", "describe", "a").out
    assert "Load by generation 2, by rank: 2.50 s, longest read of rank 0 on file: 2.00 s (60 B/s)" in text
    assert "   0  100 B  2.000s  0.500s  60 B/s" in text
    assert "  3 reads came with wrong bytes and right when repeated (3 on rank 0)\n" in text
    assert "generation 3" not in text
    (found,) = json.loads(cli("checkpoints", "describe", "a", "-o", "json").out)["loads"]
    assert (found["generation"], found["dataBytes"], found["movedBytes"]) == (2, 100, 120)
    part = {"rank": 0, "dataBytes": 100, "movedBytes": 120, "healedReads": 3, "seconds": {"read": 2.0, "verify": 0.5}}
    assert (found["parts"], found["healedReads"]) == ([part], 3)


def test_verify_tells_of_reads_that_were_only_right_when_repeated(
    cli: Cli, saved: list[CheckpointRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, changed = LocalStorage.read, []

    def once_wrong(storage: LocalStorage, path: str, **named: Any) -> bytes:
        data = read(storage, path)
        if path.startswith("parts/w") and path not in changed:
            changed.append(path)
            return b"?" + data[1:]
        return data

    monkeypatch.setattr(LocalStorage, "read", once_wrong)
    done = cli("checkpoints", "verify", "a")
    assert done.code == 0
    reads = f"{len(changed)} read" + "s" * (len(changed) > 1)
    assert f"; {reads} only right when repeated: see what changes bytes on the way" in done.out


def test_verify_names_the_damaged_file(cli: Cli, saved: list[CheckpointRef]) -> None:
    whole = cli("checkpoints", "verify", "a")
    assert whole.code == 0
    assert "the checkpoint of step 20 is whole: " in whole.out
    assert json.loads(cli("checkpoints", "verify", "a", "-o", "json").out)["healedReads"] == 0
    assert "repeated" not in whole.out
    path = next((Path(saved[0].uri) / "data").iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert cli("checkpoints", "verify", "a").code == 0
    damaged = cli("checkpoints", "verify", "a", "--step", "10")
    assert (damaged.code, damaged.out) == (6, "")
    assert f"{path} is corrupt" in damaged.err
    assert "(CHECKPOINT_UNUSABLE)" in damaged.err
    assert "hint: " in damaged.err
    machine = cli("checkpoints", "verify", "a", "--step", "10", "-o", "json")
    assert machine.code == 6
    (line,) = json.loads(machine.out)["damage"]
    assert str(path) in line
    (Path(saved[0].uri) / "manifest.json").unlink()
    assert cli("checkpoints", "verify", "a", "--step", "10").code == 6


def flip(ref: CheckpointRef) -> tuple[Path, bytes]:
    """Changes its last byte; returns the file, and what was in it."""
    path = next((Path(ref.uri) / "data").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return path, whole


def test_what_verify_finds_the_controller_is_told_and_the_list_says(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    newest = saved[1]
    path, _ = flip(newest)
    found = cli("checkpoints", "verify", "a")
    assert found.code == 6
    assert "it is refused now: job a does not go back to it" in found.err
    (request,) = sent(controller, "RefuseCheckpoint")
    assert isinstance(request, RefuseCheckpointRequest)
    assert (request.name, request.uri, bool(request.request_id)) == ("uid-a", newest.uri, True)
    assert f"{path} is corrupt" in request.found
    rows = [line.split() for line in cli("checkpoints", "list", "a").out.splitlines()]
    assert [row[4] for row in rows[1:3]] == ["committed", "refused"]
    again = cli("checkpoints", "verify", "a", "--step", "20")
    assert "is damaged; it stays refused" in again.err
    assert len(sent(controller, "RefuseCheckpoint")) == 1
    flip(saved[0])
    last = json.loads(cli("checkpoints", "verify", "a", "-o", "json").out)
    assert (last["step"], last["marked"], last["notMarked"]) == (10, True, "")
    assert "job a has no other, so it stays in its list" in cli("checkpoints", "verify", "a").err


def test_a_controller_that_does_not_take_it_is_said_and_hides_nothing(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    path, _ = flip(saved[1])

    def forbid(method: str) -> None:
        if method == "ListCheckpoints":  # then comes the refusal
            controller.failures.append(PermissionDeniedError("you are a viewer"))

    controller.on_call = forbid
    found = cli("checkpoints", "verify", "a")
    assert found.code == 6
    assert f"{path} is corrupt" in found.err
    assert "the controller could not be told, so that job a may go back to it: you are a viewer" in found.err
    data = json.loads(cli("checkpoints", "verify", "a", "-o", "json").out)
    assert (data["marked"], "you are a viewer" in data["notMarked"]) == (False, True)


def test_a_folder_that_is_not_mounted_here_refuses_nothing(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    Path(saved[1].uri).rename(Path(saved[1].uri).with_name("elsewhere"))
    found = cli("checkpoints", "verify", "a")
    assert (found.code, "manifest.json is missing" in found.err) == (6, True)
    assert sent(controller, "RefuseCheckpoint") == []


def test_a_mark_that_the_controller_does_not_know_goes_when_all_is_right(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    mark = Path(saved[1].uri) / "damaged"
    mark.write_text("a flip\n")
    done = cli("checkpoints", "verify", "a")
    assert (done.code, mark.exists()) == (0, False)
    assert "it was marked as damaged, and is no longer: a flip" in done.out
    refuse(controller, saved[1])
    mark.write_text("a flip\n")
    assert cli("checkpoints", "verify", "a", "--step", "20").code == 0
    assert mark.exists(), "what the controller has refused only --accept takes back"


def test_rm_asks_and_waits_until_the_files_are_gone(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = answer(monkeypatch, "n\n")
    assert cli("checkpoints", "rm", "a", "--step", "10").code == 1
    assert f"remove the checkpoint of step 10 of job a ({saved[0].uri})? [y/N]" in heard.getvalue()
    assert cli("checkpoints", "rm", "a", "--step", "11").code == 3
    assert not sent(controller, "DeleteCheckpoint")
    done = cli("checkpoints", "rm", "a", "--step", "10", "-y", "--request-id", "r")
    assert (done.code, done.out) == (0, "the checkpoint of step 10 of job a is removed\n")
    (request,) = sent(controller, "DeleteCheckpoint")
    assert isinstance(request, DeleteCheckpointRequest)
    assert (request.name, request.step, request.request_id) == ("a", 10, "r")
    controller.stuck = "a link leads out of the folder"
    failed = cli("checkpoints", "rm", "a", "--step", "20", "-y")
    assert failed.code == 7
    assert "a link leads out of the folder (NOT_DELETED)" in failed.err
    assert cli("checkpoints", "rm", "a").code == 2
    assert cli("checkpoints", "rm", "a", "--step", str(2**40), "-y").code == 2


def test_what_became_of_the_checkpoints_of_a_job_that_ended_is_said(cli: Cli, controller: FakeController) -> None:
    controller.add_job("a", phase="SUCCEEDED")
    controller.add_event("checkpoint.committed", "checkpoint of step 20 is committed: /c/20")
    assert "job a ended without a checkpoint" in cli("checkpoints", "list", "a").err
    controller.add_event("checkpoint.deleted", "checkpoint of step 10 is removed: /c/10")
    controller.add_event("checkpoint.deleted", "checkpoint of step 20 is removed: /c/20")
    found = cli("checkpoints", "list", "a")
    assert found.code == 0
    assert "job a has no checkpoint left: checkpoint of step 20 is removed: /c/20" in found.err


def test_pinned_ones_are_shown_in_the_list(cli: Cli, controller: FakeController, saved: list[CheckpointRef]) -> None:
    assert cli("checkpoints", "pin", "a", "--step", "10").code == 0
    rows = [line.split() for line in cli("checkpoints", "list", "a").out.splitlines()]
    assert [row[3] for row in rows] == ["PINNED", "yes", "-"]
    assert json.loads(cli("get", "checkpoints", "a", "-o", "json").out)["pinned"] == [saved[0].uri]
    assert cli("checkpoints", "list", "a", "-o", "custom-columns=STEP:.step").out.split() == ["STEP", "10", "20"]
    done = json.loads(cli("checkpoints", "unpin", "a", "--step", "10", "-o", "json").out)
    assert done == {"job": "a", "step": 10, "pinned": False}
    assert json.loads(cli("get", "checkpoints", "a", "-o", "json").out)["pinned"] == []
    requests = [r for r in sent(controller, "PinCheckpoint") if isinstance(r, PinCheckpointRequest)]
    assert [request.pinned for request in requests] == [True, False]
    assert len({request.request_id for request in requests}) == 2


def refuse(controller: FakeController, ref: CheckpointRef) -> str:
    """The checkpoint is the job's no longer, as a worker found one of its files cut off; returns what it said."""
    reason = f"{ref.uri}/data/w00000-000.safetensors is corrupt: bytes 0:64 (param of w) do not have\ntheir checksum"
    controller.checkpoints = [known for known in controller.checkpoints if known.uri != ref.uri]
    controller.refused = [RefusedCheckpoint(ref=ref, reason=reason, at_s=1.1e9)]
    return reason


def test_a_refused_one_is_listed_and_described_with_its_reason(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    older, newest = saved
    reason = refuse(controller, newest)
    header, first, second, why = cli("checkpoints", "list", "a").out.splitlines()
    assert [header.split()[4], first.split()[0], first.split()[4]] == ["STATE", "10", "committed"]
    assert (second.split()[0], second.split()[4]) == ("20", "refused")
    assert "step 20 was refused" in why
    assert ": data/w00000-000.safetensors is corrupt: bytes 0:64 (param of w) do not have their checksum" in why
    data = json.loads(cli("checkpoints", "list", "a", "-o", "json").out)
    assert [(one["step"], one["state"]) for one in data["checkpoints"]] == [(10, "committed")]
    (found,) = data["refused"]
    assert (found["uri"], found["state"], found["reason"]) == (newest.uri, "refused", reason)
    assert found["refusedSince"].startswith("2004-11-09")
    assert cli("checkpoints", "list", "a", "-o", "name").out.split() == [older.uri], "what a script takes is usable"
    assert json.loads(cli("checkpoints", "describe", "a", "-o", "json").out)["step"] == 10
    text = cli("checkpoints", "describe", "a", "--step", "20").out
    assert all(line in text for line in reason.splitlines())
    assert "trainctl checkpoints verify a --step 20 --accept" in text
    described = json.loads(cli("checkpoints", "describe", "a", "--step", "20", "-o", "json").out)
    assert (described["state"], described["reason"]) == ("refused", reason)
    (Path(newest.uri) / "manifest.json").unlink()
    controller.missing_checkpoints = [newest.uri]
    listed = cli("checkpoints", "list", "a")
    assert listed.out.endswith("do not have their checksum; its files are gone\n")
    assert "warning" not in listed.err
    verified = cli("checkpoints", "verify", "a", "--step", "20", "--accept")
    assert verified.code == 6
    assert "the checkpoint of step 20 stays refused: " in verified.err
    assert "if there is a copy of its folder" in verified.err
    gone = cli("checkpoints", "describe", "a", "--step", "20")
    assert gone.code == 6
    assert "(param of w)" in gone.err
    assert "manifest.json is missing" in gone.err


def test_a_refused_one_of_a_step_that_was_saved_again_is_not_in_the_way(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    refuse(controller, saved[0])
    controller.refused[0].ref.step = 20
    assert json.loads(cli("checkpoints", "describe", "a", "--step", "20", "-o", "json").out)["state"] == "committed"
    assert cli("checkpoints", "verify", "a", "--step", "10").code == 3


def test_the_refusal_of_a_whole_one_is_taken_back_only_when_asked_for(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    newest = saved[1]
    refuse(controller, newest)
    path = next((Path(newest.uri) / "data").iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    damaged = cli("checkpoints", "verify", "a", "--step", "20", "--accept")
    assert damaged.code == 6
    assert "is damaged; it stays refused" in damaged.err
    path.write_bytes(whole)
    looked = cli("checkpoints", "verify", "a", "--step", "20")
    assert (looked.code, sent(controller, "AcceptCheckpoint")) == (0, [])
    assert "to take that back: trainctl checkpoints verify a --step 20 --accept" in looked.out
    done = cli("checkpoints", "verify", "a", "--step", "20", "--accept", "--request-id", "r")
    assert done.code == 0
    assert "it is one of job a again" in done.out
    (request,) = sent(controller, "AcceptCheckpoint")
    assert isinstance(request, AcceptCheckpointRequest)
    assert (request.name, request.uri, request.request_id) == ("uid-a", newest.uri, "r")
    again = cli("checkpoints", "verify", "a", "--step", "20", "--accept")
    assert "there is nothing to accept" in again.out
    assert len(sent(controller, "AcceptCheckpoint")) == 1


def test_a_job_that_has_gone_on_is_said_to_stay(
    cli: Cli, controller: FakeController, saved: list[CheckpointRef]
) -> None:
    refuse(controller, saved[1])
    controller.takes_accepted = False
    done = cli("checkpoints", "verify", "a", "--step", "20", "--accept")
    assert "job a stays with what it went back to" in done.out
    assert f"resumeFrom: {done and controller.calls[-1][1].uri}" in done.out
    refuse(controller, saved[1])
    data = json.loads(cli("checkpoints", "verify", "a", "--step", "20", "--accept", "-o", "json").out)
    assert (data["accepted"], data["listed"]) == (True, False)


def test_describe_and_verify_do_without_torch() -> None:
    modules = "trainctl.cli.commands.checkpoint_verify, trainctl.cli.commands.checkpoint"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
