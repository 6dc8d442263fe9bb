"""Without it a job with a misspelt corpus or tokenizer would get its nodes first and fail on them later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainctl.cli.job_file.paths import with_absolute_paths
from trainctl.controller.jobs.data_checks import data_problems
from trainctl.core.errors import DataError
from trainctl.core.records.spec import JobMetadata, JobSpec, TrainJob
from trainctl.core.records.train_spec import DataSourceSpec, TokenizerSpec, TrainDataSpec, TrainSpec
from trainctl.parallel.data.corpus import open_corpus, sources_of


def _found(train: TrainSpec) -> dict[str, str]:
    return {problem.path: problem.message for problem in data_problems(train)}


def test_each_source_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "a.bin.json").write_text("{}")
    uris = (str(tmp_path), "s3://bucket/x", "python-stdlib", f"{tmp_path}/none", "relative", f"{tmp_path}/shards")
    sources = tuple(DataSourceSpec(uri=uri) for uri in uris)
    found = _found(TrainSpec(data=TrainDataSpec(sources=sources)))
    assert {path: message.rpartition(" ")[0].replace(str(tmp_path), "") for path, message in found.items()} == {
        "spec.train.data.sources[3].uri": "/none does not exist on the controller's",
        "spec.train.data.sources[4].uri": "expected an absolute path or a URL, found",
        "spec.train.data.sources[5].include": "no file in /shards matches",
    }


def test_folders_that_are_links_are_entered_as_the_worker_does(tmp_path: Path) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    corpus.mkdir()
    (corpus / "one").symlink_to(elsewhere)
    (corpus / "two").symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(corpus)
    (elsewhere / "deep" / "self").symlink_to(elsewhere / "deep")
    data = TrainDataSpec(uri=str(corpus), include="*.txt")
    message = f"no file in {corpus} matches '*.txt'"
    assert _found(TrainSpec(data=data)) == {"spec.train.data.include": message}
    for passed_by in (".git/a.txt", "__pycache__/a.txt", ".a.txt"):
        (elsewhere / passed_by).parent.mkdir(exist_ok=True)
        (elsewhere / passed_by).write_text("a")
    assert _found(TrainSpec(data=data)) == {"spec.train.data.include": message}
    with pytest.raises(DataError, match="none matches"):
        open_corpus(sources_of(data)["spec.train.data"], hold_out_every=0)
    (elsewhere / "deep" / "a.txt").write_text("a")
    assert not _found(TrainSpec(data=data))
    assert len(open_corpus(sources_of(data)["spec.train.data"], hold_out_every=0).files) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model": {}}', ""),
        ("{", "is not the JSON of a tokenizer: expected a JSON object, found: Expecting"),
        ("[]", "is not the JSON of a tokenizer: expected a JSON object, found list"),
        ("{}", 'is not the JSON of a tokenizer: it has no "model"'),
        (None, "there is no tokenizer.json in"),
    ],
)
def test_a_tokenizer_is_looked_at(content: str | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    found = _found(TrainSpec(tokenizer=TokenizerSpec(kind="file", path=str(tmp_path))))
    assert list(found) == (["spec.train.tokenizer.path"] if message else [])
    assert message in found.get("spec.train.tokenizer.path", "")


def test_no_more_of_a_tokenizer_is_read_than_one_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainctl.controller.jobs.data_checks._MAX_TOKENIZER_BYTES", 20)
    file = tmp_path / "a.json"
    file.write_text('{"model": "%s"}' % ("a" * 20))
    found = _found(TrainSpec(tokenizer=TokenizerSpec(kind="file", path=str(file))))
    assert "found more than 20 B" in found["spec.train.tokenizer.path"]


def test_a_pipe_without_a_writer_is_no_tokenizer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    found = _found(TrainSpec(tokenizer=TokenizerSpec(kind="file", path=f"{tmp_path}/a.json")))
    assert "it is a named pipe, expected a regular file" in found["spec.train.tokenizer.path"]


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    found = _found(TrainSpec(tokenizer=TokenizerSpec(kind="file", path=f"{tmp_path}/x.json")))
    assert "does not exist on the controller's machine" in found["spec.train.tokenizer.path"]


def test_relative_paths_of_sources_and_tokenizers_become_absolute(tmp_path: Path) -> None:
    train = TrainSpec(
        data=TrainDataSpec(sources=(DataSourceSpec(uri="a/*.txt"), DataSourceSpec(uri="s3://b/c"))),
        tokenizer=TokenizerSpec(kind="file", path="tokenizer"),
    )
    job = with_absolute_paths(TrainJob(metadata=JobMetadata(name="a"), spec=JobSpec(train=train)), here=tmp_path)
    assert [source.uri for source in job.spec.train.data.sources] == [f"{tmp_path}/a/*.txt", "s3://b/c"]
    assert job.spec.train.tokenizer.path == f"{tmp_path}/tokenizer"
    assert job.spec.train.data.uri == "python-stdlib"
