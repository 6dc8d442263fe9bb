"""Checkpoints on an S3 store that is reached over HTTP, on good days and on bad ones.

Without it one lost answer of a store could cost a checkpoint.
"""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch

from contracts.storage_contract import StorageContract
from object_store.proxy import Answer, Fault
from object_store.store import Store
from trainctl.checkpoint.engine import load
from trainctl.checkpoint.kept.catalog import newest, survey
from trainctl.checkpoint.kept.retention import retain
from trainctl.checkpoint.library import load_state, save_state
from trainctl.checkpoint.live.state import LocalState
from trainctl.checkpoint.storage import upload
from trainctl.checkpoint.storage.failures import StorageSaysNoError
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.patience import Patience
from trainctl.checkpoint.storage.port import RangeRead, Storage
from trainctl.checkpoint.storage.probe import examine, probe, try_out
from trainctl.checkpoint.storage.remote import FsspecStorage
from trainctl.core.errors import DamagedCheckpointError, FencedError, StorageRefusedError
from unit.checkpoint.ranks import at_step, attempt, full_values, plain, rank_state, rows, same_bits, save

pytest_plugins = ["object_store.fixtures"]
Act = Callable[[Storage], object]
BODY = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def patient_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """People wait six seconds for a probe; a machine that is busy with tests may need more."""
    monkeypatch.setattr("trainctl.checkpoint.storage.probe.QUICK", Patience(deadline_s=60.0, answer_s=60.0))


class TestS3Storage(StorageContract):
    @pytest.fixture
    def storage(self, store: Store) -> Storage:
        found = store.open()
        assert isinstance(found, FsspecStorage)
        return found


def slow_down(fault: Fault) -> Fault:
    return fault.slow_down()


def fail(fault: Fault) -> Fault:
    return fault.fail()


def reset(fault: Fault) -> Fault:
    return fault.reset()


def hang(fault: Fault) -> Fault:
    return fault.hang()


def lose_the_answer(fault: Fault) -> Fault:
    return fault.lose_the_answer()


def break_in_the_body(fault: Fault) -> Fault:
    return fault.break_in_the_body(100)


def cut_off(fault: Fault) -> Fault:
    return fault.cut_off(100)


def trickle(fault: Fault) -> Fault:
    return fault.trickle()


passing = pytest.mark.parametrize("fault", [slow_down, fail, reset, hang, lose_the_answer])
while_reading = pytest.mark.parametrize(
    "fault", [slow_down, fail, reset, hang, break_in_the_body, cut_off, trickle], ids=lambda fault: fault.__name__
)


@while_reading
def test_what_goes_wrong_while_reading_is_asked_for_again(store: Store, fault: object) -> None:
    storage = store.open()
    storage.write_file("f", [BODY])
    assert callable(fault)
    trouble = fault(store.proxy.when("GET", "/f"))
    assert storage.read("f") == BODY
    assert trouble.count == 1
    trouble.left = 1
    found = bytearray(600)
    storage.read_ranges("f", [RangeRead(1000, memoryview(found))])
    assert bytes(found) == BODY[1000:1600]
    assert trouble.count == 2


def test_what_is_known_to_be_whole_takes_one_request(store: Store) -> None:
    storage = store.open()
    storage.write_file("f", [BODY])

    def asked() -> tuple[int, int]:
        return store.proxy.seen("GET", "/f"), store.proxy.seen("HEAD", "/f") + store.proxy.seen("GET", "list-type")

    before = asked()
    assert storage.read("f", whole=BODY.__eq__) == BODY
    once = asked()
    assert (once[0] - before[0], once[1] - before[1]) == (1, 0)
    assert storage.read("f") == BODY
    assert (asked()[0] - once[0], asked()[1] > once[1]) == (1, True), "else an answer may have been cut off"
    store.proxy.when("GET", "/f").cut_off(100)
    assert storage.read("f", whole=BODY.__eq__) == BODY
    assert storage.read("f", whole=lambda data: False) == BODY, "whole, but not what was expected"


def test_the_manifests_of_a_load_take_one_request_each(store: Store) -> None:
    values = full_values()
    ref = save(store.uri, values, layout=rows(values, 3))
    parts = 3
    state = rank_state(values, plain(values, 1), "rank:0", blank=True)
    before = {name: store.proxy.seen(*name) for name in (("GET", ".json"), ("HEAD", ".json"))}
    load(ref, state)
    found = {name: store.proxy.seen(*name) - count for name, count in before.items()}
    assert found == {("GET", ".json"): 1 + 1 + parts, ("HEAD", ".json"): 0}, "the root manifest, the table, the parts"


@passing
def test_what_goes_wrong_while_writing_is_sent_again(store: Store, fault: object) -> None:
    storage = store.open()
    assert callable(fault)
    trouble = fault(store.proxy.when("PUT", "/f"))
    assert storage.write_file("f", [BODY[:5000], BODY[5000:]]) == len(BODY)
    assert trouble.count == 1
    store.proxy.calm()
    assert storage.read("f") == BODY


@passing
def test_only_one_creates_a_file_even_if_nobody_hears_that_it_did(store: Store, fault: object) -> None:
    storage = store.open()
    assert callable(fault)
    trouble = fault(store.proxy.when("PUT", "/manifest.json"))
    storage.create_file("manifest.json", b"first")
    assert trouble.count == 1
    with pytest.raises(FileExistsError):
        storage.create_file("manifest.json", b"second")
    trouble.left = 1
    with pytest.raises(FileExistsError):
        storage.create_file("manifest.json", b"third")
    assert trouble.count == 2
    assert storage.read("manifest.json") == b"first"


@passing
def test_lines_are_added_once(store: Store, fault: object) -> None:
    storage = store.open()
    storage.append("lines", b"one\n", at=0)
    assert callable(fault)
    fault(store.proxy.when("PUT", "/lines"))
    storage.append("lines", b"two\n", at=4)
    assert storage.read("lines") == b"one\ntwo\n"


def test_a_large_file_goes_in_parts_and_only_the_part_that_failed_is_sent_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 5 << 20)
    storage = store.open()
    blocks = [bytes([number]) * (3 << 20) for number in range(6)]
    trouble = store.proxy.when("PUT", "partNumber=3").times(2).slow_down()
    assert storage.write_file("large", blocks) == 18 << 20
    assert trouble.count == 2
    assert store.proxy.seen("PUT", "/large") == 4 + 2
    assert storage.read("large") == b"".join(blocks)
    assert store.uploads() == 0


def test_an_upload_that_fails_for_good_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 5 << 20)
    storage = store.open()
    store.proxy.when("PUT", "partNumber=2").always().slow_down()
    with pytest.raises(StorageSaysNoError, match=r"part 2: .*SlowDown.*\(tried \d+ times in [12]\d s\)") as caught:
        storage.write_file("large", [bytes(12 << 20)])
    assert caught.value.again
    assert store.uploads() == 0
    assert not store.objects()


def test_an_upload_that_was_begun_twice_is_taken_back_twice(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when the answer to the first begin was lost; another object's upload is nobody's business here."""
    monkeypatch.setattr(upload, "PART_BYTES", 5 << 20)
    storage = store.open()
    filesystem = storage._fs  # type: ignore[attr-defined]
    bucket, key, _ = filesystem.split_path(f"{storage._root}/large")  # type: ignore[attr-defined]
    filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=key)
    filesystem.call_s3("create_multipart_upload", Bucket=bucket, Key=f"{key}-other")

    def broken() -> Iterator[bytes]:
        yield bytes(11 << 20)
        raise RuntimeError("the copy was disturbed")

    with pytest.raises(RuntimeError, match="disturbed"):
        storage.write_file("large", broken())
    assert store.uploads() == 1


def test_an_upload_whose_source_fails_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 5 << 20)

    def broken() -> Iterator[bytes]:
        yield bytes(11 << 20)
        raise RuntimeError("the copy was disturbed")

    with pytest.raises(RuntimeError, match="disturbed"):
        store.open().write_file("large", broken())
    assert store.uploads() == 0
    assert not store.objects()


def test_the_end_of_an_upload_that_nobody_heard_of_is_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "PART_BYTES", 5 << 20)
    trouble = store.proxy.when("POST", "uploadId=").lose_the_answer()
    assert store.open().write_file("large", [bytes(6 << 20)]) == 6 << 20
    assert trouble.count == 1
    assert store.objects() == ["runs/first/large"]


def test_an_upload_of_which_less_arrived_is_an_error(store: Store) -> None:
    class Shorter:
        def __iter__(self) -> Iterator[bytes]:
            yield BODY

    storage = store.open()
    store.proxy.when("HEAD", "/f").always()._do(
        lambda handler, ask: handler.answer(_with_length(ask(), 17))  # what the store says that it has
    )
    with pytest.raises(OSError, match=f"expected {len(BODY)} bytes after the upload, found 17"):
        storage.write_file("f", Shorter())


def _with_length(answer: Answer, length: int) -> Answer:
    headers = [(n, str(length) if n.lower() == "content-length" else v) for n, v in answer.headers]
    return Answer(answer.status, headers, answer.body)


@pytest.mark.parametrize(
    ("request_", "act", "right"),
    [
        ("GET", lambda storage: storage.read("f"), "s3:GetObject"),
        ("HEAD", lambda storage: storage.size("f"), "s3:GetObject or s3:ListBucket"),
        ("GET list-type", lambda storage: storage.list(""), "s3:ListBucket"),
    ],
)
def test_which_right_to_read_is_missing_is_said(store: Store, request_: str, act: Act, right: str) -> None:
    storage = store.open()
    storage.write_file("f", [b"x"])
    method, _, query = request_.partition(" ")
    store.proxy.when(method, query).always().deny()
    with pytest.raises(StorageSaysNoError) as caught:
        act(storage)
    assert f"lack a right ({right})" in caught.value.hint


def test_a_store_without_conditional_put_is_looked_at_first(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    storage = store.open()
    store.proxy.when("PUT", "/x conditional").always().refuse(501, "NotImplemented")
    storage.create_file("x", b"first")
    assert "no conditional put" in caplog.text
    with pytest.raises(FileExistsError):
        storage.create_file("x", b"second")
    assert storage.read("x") == b"first"


def test_a_storage_that_never_answers_is_given_up(store: Store) -> None:
    storage = store.open(patience=Patience(deadline_s=20.0, answer_s=0.7))
    store.proxy.when("GET").always().hang()
    with pytest.raises(StorageSaysNoError, match="no answer within 1 s") as caught:
        storage.list("")
    assert caught.value.errno == errno.ETIMEDOUT


def values_of(step: int) -> dict:  # type: ignore[type-arg]
    return at_step(full_values({"w": (64, 32), "b": (5,)}, seed=step), step)


def blank() -> LocalState:
    values = full_values({"w": (64, 32), "b": (5,)})
    return rank_state(values, plain(values, 1), "rank:0", blank=True)


def holds(state: LocalState, step: int) -> bool:
    saved = {(k.fqn, k.kind): v for k, v in values_of(step).items()}
    return all(same_bits(t.tensor, saved[t.key.fqn, t.key.kind]) for t in state.tensors)


def test_a_checkpoint_is_saved_and_loaded_through_everything_that_passes(store: Store) -> None:
    for trouble in (slow_down, reset):
        trouble(store.proxy.when("PUT", "data/"))
        trouble(store.proxy.when("PUT", "parts/"))
        trouble(store.proxy.when("GET", "data/"))
    lose_the_answer(store.proxy.when("PUT", "manifest.json"))
    cut_off(store.proxy.when("GET", "data/"))
    first = save(store.uri, values_of(1), of=attempt(1))
    second = save(store.uri, values_of(2), of=attempt(2), parent=first)
    store.proxy.when("GET", "data/").flip()
    store.proxy.when("GET", "parts/").flip()
    store.proxy.when("GET", "manifest.json").flip()
    state = blank()
    load(second, state)
    assert holds(state, 2)
    assert newest(store.uri) == second
    assert retain(store.uri, job="job-a", keep=1) == ("/".join(first.uri.split("/")[-2:]),)
    assert not [key for key in store.objects() if first.attempt in key]


def test_who_loads_shows_a_sign_of_life_while_the_store_is_slow(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = save(store.uri, values_of(1), of=attempt(1))
    monkeypatch.setattr("trainctl.checkpoint.load.loading._SHOWN_EVERY_S", 0.01)
    shown, while_it_waited = threading.Event(), []

    def slow(handler: Any, ask: Callable[[], Answer]) -> None:
        while_it_waited.append(shown.wait(20))
        handler.answer(ask())

    store.proxy.when("GET", "manifest.json")._do(slow)
    state = blank()
    load(ref, state, alive=shown.set)
    assert while_it_waited == [True]
    assert holds(state, 1)


def test_one_that_wakes_up_cannot_seal_what_another_sealed(store: Store) -> None:
    save(store.uri, values_of(1), of=attempt(1))
    with pytest.raises(FencedError):
        save(store.uri, values_of(1), of=attempt(1))


def test_a_damaged_object_is_refused_and_the_older_checkpoint_taken(store: Store) -> None:
    first = save(store.uri, values_of(1), of=attempt(1))
    second = save(store.uri, values_of(2), of=attempt(2), parent=first)
    storage = open_storage(second.uri)
    (name,) = storage.list("data")[:1]
    body = bytearray(storage.read(f"data/{name}"))
    body[-1] ^= 1
    storage.write_file(f"data/{name}", [bytes(body)])
    state = blank()
    with pytest.raises(DamagedCheckpointError, match=f"{name} is corrupt"):
        load(second, state)
    assert load_state(store.uri, state, fallback=True).uri == first.uri
    assert holds(state, 1)
    assert newest(store.uri) == first
    assert len(survey(store.uri).damaged) == 1


def test_a_listing_that_lags_behind_hides_a_checkpoint_but_loses_none(store: Store) -> None:
    first = save(store.uri, values_of(1), of=attempt(1))
    second = save(store.uri, values_of(2), of=attempt(2), parent=first)
    store.proxy.when("GET", "list-type=2").hide(second.attempt)
    store.proxy.when("GET", "list-type=2").hide("step-000000000002")
    assert newest(store.uri) in (first, second)
    state = blank()
    load(second, state)
    assert holds(state, 2)
    store.proxy.calm()
    assert retain(store.uri, job="job-a", keep=2) == ()
    assert newest(store.uri) == second


def problems(store: Store, uri: str = "") -> str:
    found = probe(uri or store.uri, write=True)
    assert found, "nothing was wrong"
    assert found["hint"]
    return f"{found['code']} {found['error']} {found['hint']}"


def says(text: str, *words: str) -> bool:
    return all(word in text for word in words)


def test_a_store_that_can_be_used_is_left_as_it_was(store: Store) -> None:
    assert probe(store.uri, write=True) == {}
    assert store.objects() == []


def test_a_bucket_that_is_missing_is_said_and_not_made(store: Store) -> None:
    name = f"{store.bucket}-typo"
    assert says(problems(store, f"s3://{name}/runs"), "STORAGE_REFUSED", f"s3://{name}/runs", "bucket")
    with pytest.raises(StorageRefusedError, match=name):
        save(f"s3://{name}/runs", values_of(1))
    assert name not in [path.rpartition("/")[2] for path in _buckets()]


def _buckets() -> Sequence[str]:
    import fsspec  # type: ignore[import-untyped]

    found: Sequence[str] = fsspec.filesystem("s3", skip_instance_cache=True).ls("", refresh=True)
    return found


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"])
def test_wrong_credentials_are_said(store: Store, code: str) -> None:
    store.proxy.when("GET").always().refuse(403, code)
    words = (store.uri, store.proxy.url, "credentials are wrong", "AWS_ACCESS_KEY_ID")
    assert says(problems(store), "STORAGE_REFUSED", *words)


def test_wrong_credentials_are_said_by_the_library_too(store: Store) -> None:
    ref = save(store.uri, values_of(1), of=attempt(1))
    state = blank()
    for method in ("GET", "HEAD", "PUT"):
        store.proxy.when(method).always().refuse(403, "InvalidAccessKeyId")
    for act in (
        lambda: load_state(store.uri, state),
        lambda: load_state(ref.uri, state),
        lambda: load(ref, state),
        lambda: save_state(store.uri, state, step=2),
    ):
        with pytest.raises(StorageRefusedError) as caught:
            act()
        assert says(str(caught.value), store.uri, store.proxy.url)
        assert says(caught.value.hint, "the credentials are wrong", "AWS_ACCESS_KEY_ID")
    assert not any(t.tensor.view(torch.uint8).any() for t in state.tensors)


def test_no_credentials_are_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert says(problems(store), "STORAGE_REFUSED", store.uri, "give credentials")


def test_who_may_read_but_not_write_is_told_before_anything_is_trained(store: Store) -> None:
    save(store.uri, values_of(1), of=attempt(1))
    store.proxy.when("PUT").always().deny()
    assert probe(store.uri) == {}
    assert says(problems(store), "STORAGE_REFUSED", "writing to", store.uri, "lack a right (s3:PutObject)")


def test_a_store_without_conditional_put_is_said_to_lack_it(store: Store) -> None:
    store.proxy.when("PUT", " conditional").always().refuse(501, "NotImplemented")
    found = examine(store.uri)
    assert "error" not in found
    assert found["tookS"] > 0
    (note,) = found["notes"]
    assert "no conditional put" in note
    assert store.objects() == []


def test_a_store_that_ignores_the_condition_is_said_to_lack_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = store.open()
    monkeypatch.setattr(storage, "create_file", lambda name, data: storage.write_file(name, [data]))
    (note,) = try_out(storage, write=True)
    assert "no conditional put" in note
    assert store.objects() == []


@pytest.mark.parametrize("call", ["read", "list"])
def test_a_probe_that_fails_half_way_leaves_nothing(store: Store, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    storage = store.open()
    listed, read = iter([storage.list(""), ()]), b"other bytes"
    if call == "list":
        monkeypatch.setattr(storage, "list", lambda path: next(listed))
        (note,) = try_out(storage, write=True)
        assert "listing lags" in note
    else:
        monkeypatch.setattr(storage, "read", lambda path: read)
        with pytest.raises(StorageRefusedError, match="gave other bytes back"):
            try_out(storage, write=True)
    assert store.objects() == []


def test_who_may_write_but_not_remove_is_told(store: Store) -> None:
    store.proxy.when("DELETE").always().deny()
    store.proxy.when("POST").always().deny()
    assert says(problems(store), "STORAGE_REFUSED", "removing what was written", "lack a right (s3:DeleteObject)")


def test_an_endpoint_that_cannot_be_reached_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("trainctl.checkpoint.storage.probe.QUICK", Patience(deadline_s=0.3, answer_s=2.0))
    assert says(problems(store), "STORAGE_AWAY", store.uri, "AWS_ENDPOINT_URL")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3//bucket/runs", "s3://bucket/runs"),
        ("s3:/bucket/runs", "s3://bucket/runs"),
        ("S3:bucket/runs", "s3://bucket/runs"),
        ("s4://bucket/runs", "did you mean s3://?"),
        ("nosuch://bucket", "install fsspec"),
        ("s3://my bucket/x", 'Invalid bucket name "my bucket"'),
        ("s3://Bad!/x", "correct the URI"),
    ],
)
def test_a_misspelt_uri_is_said(store: Store, uri: str, words: str) -> None:
    assert says(problems(store, uri), "STORAGE_REFUSED", uri, words)
