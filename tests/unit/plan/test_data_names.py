"""What names of files and folders say of data.

Without it data could be read in another format than it has, or a cache taken for data.
"""

from __future__ import annotations

import pytest

from trainctl.parallel.plan.data_names import format_of_name, is_archive, is_sidecar, is_walked


@pytest.mark.parametrize(
    ("path", "format_name"),
    [
        ("a.jsonl", "jsonl"),
        ("A.NDJSON", "jsonl"),
        ("x/a.jsonl.gz", "jsonl"),
        ("a.parquet", "parquet"),
        ("a.pq", "parquet"),
        ("a.bin", "tokens"),
        ("a.txt", "text"),
        ("a.py", "text"),
        ("jsonl", "text"),
        ("a.gz", "text"),
    ],
)
def test_the_suffix_says_the_format(path: str, format_name: str) -> None:
    assert format_of_name(path) == format_name


@pytest.mark.parametrize("suffix", ["zst", "bz2", "xz", "lz4", "br", "zip", "7z", "rar", "tar", "tgz", "tar.gz"])
def test_what_nothing_here_unpacks(suffix: str) -> None:
    assert is_archive(f"a.{suffix}")
    assert is_archive(f"a.{suffix.upper()}")


@pytest.mark.parametrize("path", ["a.gz", "a.jsonl.gz", "zip", "a.zip.txt"])
def test_what_is_no_archive(path: str) -> None:
    assert not is_archive(path)


def test_the_description_beside_a_token_shard() -> None:
    assert is_sidecar("x/a.bin.json")
    assert not is_sidecar("a.bin")
    assert not is_sidecar("a.json")


@pytest.mark.parametrize(("name", "walked"), [("a", True), ("a.b", True), (".git", False), ("__pycache__", False)])
def test_folders_that_are_looked_into(name: str, walked: bool) -> None:
    assert is_walked(name) is walked
