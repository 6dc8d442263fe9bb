"""Without it a corpus could be read in another order on another node, or a missing file be an unreadable traceback."""

from __future__ import annotations

import gzip
import os
import socket
import sysconfig
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec  # type: ignore[import-untyped]
import pytest

from trainctl.core.errors import DataError
from trainctl.core.records.train_spec import CorruptSpec, TrainDataSpec
from trainctl.parallel.data import corpus as corpus_module
from trainctl.parallel.data.corpus import Corpus, sources_of
from trainctl.parallel.data.corrupt import CorruptLedger
from trainctl.parallel.data.not_opened import not_opened
from trainctl.parallel.data.records import CorpusReader, Split
from trainctl.parallel.plan.data_rules import data_problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/d.md", ".hidden.txt", ".git/e.txt", "__pycache__/f.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text of {name}\n")
    return tmp_path


def open_corpus(data: TrainDataSpec) -> Corpus:
    ((path, source),) = sources_of(data).items()
    return corpus_module.open_corpus(source, hold_out_every=data.hold_out_every, path=path)


def _read(corpus: Corpus) -> list[tuple[Split, str]]:
    ledger = CorruptLedger(CorruptSpec(), corpus.uri)
    return [(found.split, str(found.content)) for found in CorpusReader(corpus, vocab_size=256).records(ledger)]


def _texts(corpus: Corpus, split: Split) -> list[str]:
    return [text for part, text in _read(corpus) if part is split]


def _names(corpus: Corpus) -> list[str]:
    return [Path(file.path).name for file in corpus.files]


def test_a_folder_gives_its_matching_files_in_order(folder: Path) -> None:
    assert _names(open_corpus(TrainDataSpec(uri=str(folder), include="*.txt"))) == ["a.txt", "b.txt", "c.txt"]
    assert _names(open_corpus(TrainDataSpec(uri=f"file://{folder}"))) == ["a.txt", "b.txt", "c.txt", "d.md"]


def test_a_file_and_a_glob_are_taken_as_they_are(folder: Path) -> None:
    assert _names(open_corpus(TrainDataSpec(uri=str(folder / "b.txt"), include="*.md"))) == ["b.txt"]
    assert _names(open_corpus(TrainDataSpec(uri=f"{folder}/sub/*", include="*.txt"))) == ["c.txt", "d.md"]


def test_the_standard_library_comes_without_installed_packages() -> None:
    corpus = open_corpus(TrainDataSpec())
    assert len(corpus.files) > 500
    assert f"{sysconfig.get_path('stdlib')}/ast.py" in {file.path for file in corpus.files}
    assert not any("site-packages" in file.path or not file.path.endswith(".py") for file in corpus.files)


def test_every_nth_file_is_held_out(tmp_path: Path) -> None:
    for index in range(7):
        (tmp_path / f"{index}.txt").write_text(str(index))
    corpus = open_corpus(TrainDataSpec(uri=str(tmp_path), hold_out_every=3))
    assert _texts(corpus, Split.HELD_OUT) == ["2", "5"]
    assert _texts(corpus, Split.TRAIN) == ["0", "1", "3", "4", "6"]


def test_few_files_give_their_last_part(tmp_path: Path) -> None:
    (tmp_path / "only.txt").write_text("0123456789")
    corpus = open_corpus(TrainDataSpec(uri=str(tmp_path), hold_out_every=5))
    assert _texts(corpus, Split.TRAIN) == ["01234567"]
    assert _texts(corpus, Split.HELD_OUT) == ["89"]
    everything = open_corpus(TrainDataSpec(uri=str(tmp_path), hold_out_every=0))
    assert _read(everything) == [(Split.TRAIN, "0123456789")]


def test_gz_is_unpacked_and_bad_utf8_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("grüße".encode()))
    (tmp_path / "b.txt").write_bytes(b"x\xffy")
    assert _texts(open_corpus(TrainDataSpec(uri=str(tmp_path))), Split.TRAIN) == [
        "grüße",
        "x\N{REPLACEMENT CHARACTER}y",
    ]


def test_any_fsspec_file_system_works() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus-test/a.txt", b"one")
    memory.pipe("/corpus-test/b.txt", b"two")
    corpus = open_corpus(TrainDataSpec(uri="memory://corpus-test"))
    assert _texts(corpus, Split.TRAIN) == ["one", "two"]
    assert corpus.files[0].version


@contextmanager
def serving(handler: Callable[..., SimpleHTTPRequestHandler]) -> Iterator[str]:
    """The address of a web server of one's own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web_address(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with serving(partial(Quiet, directory=str(folder))) as address:
        yield address


def test_a_url_works(web_address: str) -> None:
    corpus = open_corpus(TrainDataSpec(uri=f"{web_address}/a.txt", hold_out_every=0))
    assert _read(corpus) == [(Split.TRAIN, "text of a.txt\n")]


def test_a_missing_page_is_named(web_address: str) -> None:
    with pytest.raises(DataError, match=r"none.txt, found that the server answers: HTTP status 404 File not found"):
        open_corpus(TrainDataSpec(uri=f"{web_address}/none.txt"))


def test_a_page_that_is_not_given_out_is_not_called_missing(folder: Path) -> None:
    class Refusing(SimpleHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(403, "Tell me who you are")

        do_GET = do_HEAD  # noqa: N815 -- the names of http.server

        def log_message(self, *_: object) -> None:
            pass

    with serving(Refusing) as address:
        for page in ("a.txt", "*.txt"):
            with pytest.raises(DataError) as caught:
                open_corpus(TrainDataSpec(uri=f"{address}/{page}"))
            found = "found that the server answers: HTTP status 403 Tell me who you are"
            assert str(caught.value) == f"expected text files at {address}/{page}, {found}"
            assert "spec.train.data.uri" in caught.value.hint


def test_a_server_that_is_not_there_is_not_called_missing_text() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for page in ("a.txt", "*.txt"):
        with pytest.raises(DataError, match=r"found no server that answers: Connection refused\n") as caught:
            open_corpus(TrainDataSpec(uri=f"http://127.0.0.1:{port}/{page}"))
        assert "reaches it" in caught.value.hint


def test_an_error_of_some_backend_is_handed_on() -> None:
    class OfSomeBackendError(Exception):
        pass

    missing = FileNotFoundError("bucket/a.txt")
    missing.__cause__ = OfSomeBackendError("no such key")
    assert "found: OfSomeBackendError: no such key" in str(not_opened(missing, wanted="text", path="spec"))


@pytest.mark.parametrize("uri", ["/no/such/folder", "/no/such/*.txt", "file:///no/such.txt"])
def test_missing_text_is_named(uri: str) -> None:
    with pytest.raises(DataError) as caught:
        open_corpus(TrainDataSpec(uri=uri))
    assert f"expected text files at {uri}, found nothing there" in str(caught.value)
    assert "spec.train.data.uri" in caught.value.hint


def test_a_folder_without_matching_files_counts_what_is_there(folder: Path) -> None:
    with pytest.raises(DataError, match=r"match '\*\.tex' in .*, found 5 files of which none matches"):
        open_corpus(TrainDataSpec(uri=str(folder), include="*.tex"))


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(DataError, match="nonsense://x, found: ValueError"):
        open_corpus(TrainDataSpec(uri="nonsense://x"))


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(b"this is no gzip")
    corpus = open_corpus(TrainDataSpec(uri=str(tmp_path)))
    with pytest.raises(DataError, match=r"only readable records .*found .*/a\.txt\.gz, byte 0 .*: BadGzipFile"):
        _read(corpus)


def test_a_file_that_went_away_is_named(folder: Path) -> None:
    corpus = open_corpus(TrainDataSpec(uri=str(folder)))
    (folder / "b.txt").unlink()
    with pytest.raises(DataError, match=r"b\.txt .*found: FileNotFoundError"):
        _read(corpus)


def test_a_pipe_in_a_folder_is_not_waited_for(folder: Path) -> None:
    data = TrainDataSpec(uri=str(folder))
    before = _names(open_corpus(data))
    os.mkfifo(folder / "pipe.txt")
    assert _names(open_corpus(data)) == before


def test_link_to_a_folder_is_entered_once(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "a.txt").write_text("a")
    (elsewhere / "loop").symlink_to(elsewhere)
    (elsewhere / "deep" / "here").symlink_to(elsewhere / "deep")
    (elsewhere / "up").symlink_to(tmp_path)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "one").symlink_to(elsewhere)
    (corpus / "again").symlink_to(elsewhere)
    (corpus / "b.txt").write_text("b")
    found = open_corpus(TrainDataSpec(uri=str(corpus), include="*.txt"))
    assert [Path(file.path).name for file in found.files] == ["a.txt", "b.txt"]


@pytest.mark.parametrize("name", ["a.jsonl.zst", "B.TXT.XZ", "c.tar.gz", "d.zip"])
def test_archives_are_refused_and_not_read_as_text(folder: Path, name: str) -> None:
    (folder / "sub" / name).write_bytes(os.urandom(1000))
    with pytest.raises(DataError, match=rf"found .*/{name} \(1 of 5 files") as caught:
        open_corpus(TrainDataSpec(uri=str(folder)))
    assert "spec.train.data.include" in caught.value.hint
    assert _names(open_corpus(TrainDataSpec(uri=str(folder), include="*.md"))) == ["d.md"]


@pytest.mark.parametrize(
    ("include", "advice"), [("**/*.md", 'write "*.md"'), ("./*.md", 'write "*.md"'), ("sub/*.md", "into uri")]
)
def test_an_include_with_a_folder_is_explained(include: str, advice: str) -> None:
    (problem,) = data_problems(TrainDataSpec(uri="/data", include=include))
    assert problem.path == "spec.train.data.include"
    assert f'"{include}"' in problem.message
    assert advice in problem.message
