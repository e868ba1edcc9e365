"""Files that are there whole, or as they were."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from hnswcheck.durable import new_file, replacing, sync_directory, write_durably


def test_a_new_file_has_its_content(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"first")
    with pytest.raises(FileExistsError):
        write_durably(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"first"


def test_a_link_is_not_followed_to_a_new_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(FileExistsError), new_file(tmp_path / "link"):
        pass
    assert not (tmp_path / "target").exists()


def test_content_is_synced_before_the_file_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    with new_file(tmp_path / "file") as file:
        file.write(b"12")
        file.write(b"345")
        assert synced == []
    assert synced == [5]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says what a descriptor is of")
def test_a_replacement_is_synced_then_renamed_then_its_name_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    seen: list[tuple[str, bytes]] = []
    sync = os.fsync

    def recorded(descriptor: int) -> None:
        target = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append(("directory" if target.is_dir() else "file", path.read_bytes()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    with replacing(path) as draft:
        draft.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert seen == [("file", b"old"), ("directory", b"new")]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def spoil(path: Path, error: type[BaseException]) -> None:
    with replacing(path) as draft:
        draft.write_bytes(b"half")
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_after_an_error_what_was_there_is_there(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(error):
        spoil(path, error)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_draft_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    sync_directory(tmp_path)
    with pytest.raises(FileNotFoundError):
        sync_directory(tmp_path / "nowhere")
