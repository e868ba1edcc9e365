"""A private directory that is never within the store, and gone afterwards."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hnswcheck.errors import StoreUnreadable
from hnswcheck.store import scratch
from hnswcheck.store.scratch import scratch_directory


@pytest.fixture(autouse=True)
def nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "USUAL", ())
    for name in (*scratch.VARIABLES, "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)


def test_a_scratch_directory_is_private_and_gone_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with scratch_directory() as made:
        assert made.parent == tmp_path
        assert stat.S_IMODE(made.stat().st_mode) == 0o700
        (made / "file").touch()
    assert list(tmp_path.iterdir()) == []


def test_it_is_gone_after_an_error_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), scratch_directory():
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_place_within_the_store_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, other = tmp_path / "store", tmp_path / "other"
    (store / "tmp").mkdir(parents=True)
    other.mkdir()
    (tmp_path / "link").symlink_to(store)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "link" / "tmp"))
    monkeypatch.setenv("TEMP", str(other))
    with scratch_directory(store) as made:
        assert made.parent == other


def test_without_any_place_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(StoreUnreadable, match="set TMPDIR"), scratch_directory():
        pass
