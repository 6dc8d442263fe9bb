"""A folder has one reading, however its URI is spelled.

Without it a job reaches another tenant's folder by spelling it in another way.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import StorageRefusedError
from trainctl.core.uris import SCHEMES, is_chained, local_path, one_spelling, uri_problem


@pytest.mark.parametrize(
    "uri",
    [
        "/a/b",
        "file:///a/b",
        "file://localhost/a/b",
        "file:///%61/b",
        "file:///a%2Fb",
        "file:///a/b?x=1",
        "local:///a/b",
    ],
)
def test_every_spelling_of_a_path_is_the_path_that_is_opened(uri: str) -> None:
    assert local_path(uri) == "/a/b"
    storage = open_storage(uri)
    assert not isinstance(storage, LocalStorage) or storage.uri == "/a/b"


@pytest.mark.parametrize("uri", ["s3://bucket/x", "memory://x", "https://host/x"])
def test_what_lies_elsewhere_has_no_path(uri: str) -> None:
    assert local_path(uri) is None


def test_two_words_for_one_store() -> None:
    assert one_spelling("s3a://b/x") == one_spelling("S3://b/x") == "s3://b/x"
    assert one_spelling("gcs://b/X") == "gs://b/X"
    assert one_spelling("/a/B") == "/a/B"


@pytest.mark.parametrize("uri", ["simplecache::file:///x", "zip://a.zip::/x", "zip://[a::file:///x]", "dir::s3://b/x"])
def test_a_chain_of_urls_would_hide_where_it_leads(uri: str) -> None:
    assert is_chained(uri)
    with pytest.raises(StorageRefusedError, match="expected one URL, found a chain of them"):
        open_storage(uri)


@pytest.mark.parametrize("uri", ["reference:///x.json", "zip:///x", "github://x", "generic://x"])
def test_a_scheme_that_is_no_folder_is_refused_in_words(uri: str) -> None:
    with pytest.raises(StorageRefusedError, match="expected a folder that fsspec can open"):
        open_storage(uri)


@pytest.mark.parametrize("uri", ["http://[::1]:9000/x", "/data/a::b", "s3://bucket/x", str(Path("a::b"))])
def test_an_address_is_no_chain(uri: str) -> None:
    assert not is_chained(uri)


@pytest.mark.parametrize("scheme", [*SCHEMES, "S3"])
@pytest.mark.parametrize("middle", ["//", ":", ":/"])
def test_a_misspelt_url_is_no_path(scheme: str, middle: str) -> None:
    assert f"such as {scheme.lower()}://bucket/x, found" in uri_problem(f"{scheme}{middle}bucket/x")


@pytest.mark.parametrize("uri", ["file//a/b", "file:a/b", "file://a/b", "FILE://a/b"])
def test_a_misspelt_url_of_this_machine_is_given_its_third_slash(uri: str) -> None:
    assert "such as file:///a/b, found" in uri_problem(uri)


@pytest.mark.parametrize(
    "uri", ["a/b", "/a/b", "s3", "s3/x", "https", "file", "files/x", "s3://b/x", "file:///a", "file://localhost/a", ""]
)
def test_a_path_and_a_url_are_well_spelled(uri: str) -> None:
    assert uri_problem(uri) == ""


@pytest.mark.parametrize(
    ("uri", "found", "hint"),
    [
        ("s3:bucket", "a URL such as s3://bucket", "has :// behind its scheme"),
        ("file://tmp/x", "a URL such as file:///tmp/x", "three slashes behind file:"),
        ("s3://", "the name of a bucket behind s3://", "s3://BUCKET/FOLDER"),
        ("s3:///runs/x", "the name of a bucket behind s3://", "s3://BUCKET/FOLDER"),
        ("gs:///x", "the name of a bucket behind gs://", "gs://BUCKET/FOLDER"),
    ],
)
def test_what_is_wrong_with_a_uri_is_said_with_what_to_do(uri: str, found: str, hint: str) -> None:
    """Without it a URI without a bucket lists those of the account, and a hint says what was done already."""
    with pytest.raises(StorageRefusedError, match=found) as refused:
        open_storage(uri)
    assert hint in refused.value.hint


def test_a_driver_that_lists_where_it_looked_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str) -> None:
        raise OSError("Unable to load libjvm\ndlopen(/usr/lib/jvm) failed\ndlopen(/usr/lib64/jvm) failed")

    monkeypatch.setattr("trainctl.checkpoint.storage.opening._opened", refuse)
    with pytest.raises(StorageRefusedError, match="hdfs://x/y") as refused:
        open_storage("hdfs://x/y")
    assert str(refused.value).endswith("Unable to load libjvm")
    assert "Java and Hadoop" in refused.value.hint
