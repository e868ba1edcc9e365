"""The files of a directory at one moment."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hnswcheck.errors import StoreChanged, StoreUnreadable
from hnswcheck.store import files
from hnswcheck.store.files import (
    FileState,
    States,
    files_of_database,
    list_directory,
    look_at,
    settled,
    states_if_quiet,
    states_within,
)


def state_of(path: Path) -> FileState:
    state = look_at(path)
    assert state is not None
    return state


def aged(path: Path, seconds: int = 100) -> Path:
    """Last written, but not last changed, some time ago."""
    past = path.stat().st_mtime_ns - seconds * 10**9
    os.utime(path, ns=(past, past))
    return path


def test_what_is_not_there_has_no_state(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert look_at(tmp_path / "nothing") is None
    assert look_at(tmp_path / "file" / "below") is None


def test_a_link_is_looked_at_itself(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    kinds = [state_of(tmp_path / name) for name in ("folder", "link", "dangling")]
    assert [k.is_directory for k in kinds] == [True, False, False]
    assert [k.is_symlink for k in kinds] == [False, True, True]
    assert not any(k.is_file for k in kinds)


def test_a_name_that_no_system_takes_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreadable):
        look_at(tmp_path / ("x" * 5000))


def test_a_hole_is_not_believed_beyond_what_it_may_hide(tmp_path: Path) -> None:
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    state = state_of(path)
    assert state.size == 1 << 40
    assert state.solid_size(at_least=1000, compressed=1) == 1000 + state.allocated
    path.write_bytes(b"x" * 10)
    assert state_of(path).solid_size(at_least=1000, compressed=1) == 10


def test_a_directory_is_listed_by_name_and_a_file_has_nothing_in_it(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    assert [state.name for state in list_directory(tmp_path)] == ["a", "b", "c"]
    assert list_directory(tmp_path / "a") == []
    assert list_directory(tmp_path / "nowhere") == []


def test_states_within_folders_start_with_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    found = list(states_within([tmp_path / "folder", tmp_path / "nowhere"]))
    assert [state and state.name for state in found] == ["folder", "file", None]


def test_companions_lie_beside_the_target_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "real").touch()
    (tmp_path / "chroma.sqlite3").symlink_to(tmp_path / "elsewhere" / "real")
    assert files_of_database(tmp_path) == [
        tmp_path / "elsewhere" / name for name in ("real", "real-journal", "real-wal")
    ]


# --- Coming to rest: the clock is this test's own ------------------------------------------------


class Clock:
    """A time that only sleeping moves."""

    def __init__(self, now_ns: int) -> None:
        self.now_ns = now_ns
        self.naps: list[float] = []

    def time_ns(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now_ns += round(seconds * 1e9)


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Clock]:
    def at(now_ns: int) -> Clock:
        clock = Clock(now_ns)
        monkeypatch.setattr(files, "time", clock)
        return clock

    return at


def test_files_that_rest_are_looked_at_once(
    tmp_path: Path, stopped: Callable[[int], Clock]
) -> None:
    (tmp_path / "file").touch()
    state = state_of(tmp_path / "file")
    clock = stopped(state.changed_ns + files.CLOCK_TICK_NS + 1)
    assert settled(lambda: (state, None)) == (state, None)
    assert clock.naps == []


def test_a_file_written_within_a_tick_is_looked_at_again_after_one(
    tmp_path: Path, stopped: Callable[[int], Clock]
) -> None:
    (tmp_path / "file").touch()
    state = state_of(tmp_path / "file")
    clock = stopped(state.changed_ns + files.CLOCK_TICK_NS)
    assert settled(lambda: (state,)) == (state,)
    assert clock.naps == [files.CLOCK_TICK_NS / 1e9]


def test_a_change_of_the_status_alone_counts_as_well(
    tmp_path: Path, stopped: Callable[[int], Clock]
) -> None:
    (tmp_path / "file").touch()
    state = state_of(aged(tmp_path / "file"))
    assert state.changed_ns == state.ctime_ns > state.mtime_ns
    clock = stopped(state.changed_ns)
    settled(lambda: (state,))
    assert len(clock.naps) > 0


def test_a_time_in_the_future_is_at_rest(tmp_path: Path, stopped: Callable[[int], Clock]) -> None:
    (tmp_path / "file").touch()
    state = state_of(tmp_path / "file")
    clock = stopped(state.changed_ns - files.CLOCK_TICK_NS - 1)
    settled(lambda: (state,))
    assert clock.naps == []


def test_files_that_never_rest_are_being_written(
    tmp_path: Path, stopped: Callable[[int], Clock]
) -> None:
    path = tmp_path / "file"
    path.touch()
    clock = stopped(path.stat().st_mtime_ns)

    def written_at_every_look() -> States:
        os.utime(path, ns=(clock.now_ns, clock.now_ns))
        return (look_at(path),)

    with pytest.raises(StoreChanged):
        settled(written_at_every_look)
    assert len(clock.naps) == files.SETTLE_TRIES


def test_journals_and_an_empty_wal_are_not_writing(
    tmp_path: Path, stopped: Callable[[int], Clock]
) -> None:
    (tmp_path / "chroma.sqlite3").write_bytes(b"x")
    stopped(1)
    before = states_if_quiet(tmp_path, [])
    (tmp_path / "chroma.sqlite3-journal").write_bytes(b"locked")
    (tmp_path / "chroma.sqlite3-wal").touch()
    assert states_if_quiet(tmp_path, []) == before
    (tmp_path / "chroma.sqlite3-wal").write_bytes(b"row")
    assert states_if_quiet(tmp_path, []) != before
