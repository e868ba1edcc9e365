"""Whoever has a store open is seen, by /proc or by psutil."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hnswcheck.changes import processes

HOLDS = "import sys; file = open(sys.argv[1]); print('there', flush=True); sys.stdin.read()"


@contextmanager
def holder(path: Path) -> Iterator[int]:
    """Another process that has a file open: its pid."""
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(params=["proc", "psutil"])
def _seen_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "psutil":
        pytest.importorskip("psutil")
        monkeypatch.setattr(processes, "PROCESSES", Path("/nowhere"))
    elif not processes.PROCESSES.is_dir():
        pytest.skip("no /proc here")


@pytest.mark.usefixtures("_seen_by")
@pytest.mark.parametrize("name", ["chroma.sqlite3", "folder/header.bin", "linked.sqlite3"])
def test_a_process_with_a_file_of_the_store_open_is_named(name: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    (store / "folder").mkdir(parents=True)
    (store / "chroma.sqlite3").touch()
    (store / "folder" / "header.bin").touch()
    os.link(store / "chroma.sqlite3", tmp_path / "linked.sqlite3")  # another name of the database
    path = tmp_path / name if name.startswith("linked") else store / name
    with (store / "chroma.sqlite3").open(), holder(path) as pid:
        (user,) = processes.users_of(store)  # this process itself is not one
        assert user.pid == pid
        assert str(user).startswith(f"{pid} ({sys.executable} -c import sys; ")
        assert len(user.command) <= processes.COMMAND_LENGTH
    assert processes.users_of(store) == []


@pytest.mark.usefixtures("_seen_by")
def test_a_process_beside_the_store_is_not_named(tmp_path: Path) -> None:
    for name in ("store", "store-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "chroma.sqlite3").touch()
    with holder(tmp_path / "store-2" / "chroma.sqlite3"):
        assert processes.users_of(tmp_path / "store") == []


def test_without_proc_and_psutil_nobody_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chroma.sqlite3").touch()
    monkeypatch.setattr(processes, "PROCESSES", Path("/nowhere"))
    monkeypatch.setitem(sys.modules, "psutil", None)
    with holder(tmp_path / "chroma.sqlite3"):
        assert processes.users_of(tmp_path) == []
