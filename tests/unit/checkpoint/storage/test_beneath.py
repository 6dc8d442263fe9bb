"""What lies beneath a folder is read without following links out of it, and not without end.

Without it a link in a job's folder shows files of the controller's machine to whoever reads the job's logs.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from trainctl.checkpoint.storage.beneath import read_beneath
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.checkpoint.storage.port import Storage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"secret")
    folder = tmp_path / "records"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "a").write_bytes(b"line")
    (tmp_path / "by-another-name").symlink_to(folder)
    return folder


def refused(storage: Storage, path: str, number: int, most_bytes: int = 10) -> None:
    with pytest.raises(OSError) as found:  # noqa: PT011
        read_beneath(storage, path, most_bytes)
    assert found.value.errno == number


def test_what_lies_in_the_folder_is_read(folder: Path) -> None:
    (folder / "link").symlink_to("logs/a")
    for storage in (open_storage(str(folder)), open_storage(str(folder.parent / "by-another-name"))):
        assert read_beneath(storage, "logs/a", 4) == read_beneath(storage, "link", 4) == b"line"
    assert read_beneath(open_storage(f"local://{folder}"), "logs/a", 4) == b"line"


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    (folder / "file").symlink_to("../secret")
    (folder / "there").symlink_to(folder.parent)
    for path in ("file", "there/secret", "../secret"):
        refused(open_storage(str(folder)), path, errno.EPERM)


def test_what_is_too_large_is_not_read(folder: Path) -> None:
    os.truncate(folder / "logs" / "a", 1 << 40)
    refused(open_storage(str(folder)), "logs/a", errno.EFBIG)
    refused(open_storage(f"local://{folder}"), "logs/a", errno.EFBIG)


def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    refused(open_storage(str(folder)), "pipe", errno.EINVAL)
    refused(open_storage(str(folder)), "logs", errno.EINVAL)
    refused(open_storage(str(folder)), "nothing", errno.ENOENT)
