"""Whether all files are there is seen in listings; what a listing does not say is asked for by name.

Without it finding the newest checkpoint would take a request for each file, or trust a file that is cut.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

import pytest

from trainctl.checkpoint.manifest.reading import check_files, read_root, unlike_files
from trainctl.checkpoint.storage.local import LocalStorage
from trainctl.checkpoint.storage.opening import open_storage
from trainctl.core.errors import DamagedCheckpointError
from unit.checkpoint.ranks import save


def test_a_listing_that_lags_behind_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = save(tmp_path, artifacts={"config.json": b"{}"})
    storage = open_storage(ref.uri)
    root, _ = read_root(storage)
    for listing in ({}, {file.path.rpartition("/")[2]: 0 for file in root.stored_files}):
        monkeypatch.setattr(LocalStorage, "sizes", lambda self, path, found=listing: found)
        check_files(storage, root)


def test_who_may_not_list_may_still_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = save(tmp_path)
    storage = open_storage(ref.uri)
    root, _ = read_root(storage)

    def refuse(number: int) -> None:
        def sizes(self: LocalStorage, path: str) -> Mapping[str, int]:
            raise OSError(number, "no")

        monkeypatch.setattr(LocalStorage, "sizes", sizes)

    refuse(errno.EACCES)
    check_files(storage, root)
    refuse(errno.EIO)
    with pytest.raises(OSError, match="no"):
        check_files(storage, root)


def test_all_files_that_are_not_there_are_named_below_the_folder_of_the_attempt(tmp_path: Path) -> None:
    ref = save(tmp_path)
    above = open_storage(str(tmp_path))
    folder = ref.uri.removeprefix(f"{tmp_path}/")
    root, _ = read_root(above, folder)
    first, second, *_ = root.stored_files
    (Path(ref.uri) / first.path).unlink()
    (Path(ref.uri) / second.path).write_bytes(b"x")
    assert unlike_files(above, root, folder) == {
        first.path: f"{ref.uri}/{first.path} is missing",
        second.path: f"{ref.uri}/{second.path} is truncated: expected {second.size_bytes} bytes, found 1",
    }
    with pytest.raises(DamagedCheckpointError, match="step 1 is incomplete") as caught:
        check_files(above, root, folder)
    _, part, data = str(caught.value).splitlines()
    held = "; tensors in it: param of scalar, param of one, param of b"
    assert part.endswith(f"is missing{held}")
    assert data.endswith(f"found 1{held}"), "its part manifest does not say it any more"


def test_a_longer_file_is_not_called_truncated_nor_a_folder_missing(tmp_path: Path) -> None:
    ref = save(tmp_path)
    storage = open_storage(ref.uri)
    root, _ = read_root(storage)
    longer, folder, link = root.stored_files[:3]
    path = Path(ref.uri) / longer.path
    path.write_bytes(path.read_bytes() + b"x")
    for file in (folder, link):
        (Path(ref.uri) / file.path).unlink()
    (Path(ref.uri) / folder.path).mkdir()
    (Path(ref.uri) / link.path).symlink_to("nothing")
    size = longer.size_bytes
    assert unlike_files(storage, root) == {
        longer.path: f"{ref.uri}/{longer.path} is longer than it was: expected {size} bytes, found {size + 1}",
        folder.path: f"{ref.uri}/{folder.path} is no file: a folder, or a link to nothing, has its name",
        link.path: f"{ref.uri}/{link.path} is no file: a folder, or a link to nothing, has its name",
    }
