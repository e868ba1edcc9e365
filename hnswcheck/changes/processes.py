"""Which other processes have a store open? Linux says; elsewhere sqlite's locks have to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hnswcheck.formats.text import text
from hnswcheck.store.files import files_of_database

PROCESSES = Path("/proc")
COMMAND_LENGTH = 120


@dataclass(frozen=True, slots=True)
class User:
    """A process that has a file of the store open."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.command})" if self.command else str(self.pid)


def users_of(root: Path) -> list[User]:
    """Other processes with an open file of the persist directory, by pid.

    Found by path, or by device and inode of chroma.sqlite3, which holds across mounts. Processes
    of other users are seen by root only.
    """
    inside = os.fsencode(root.resolve()) + b"/"
    keys = set()
    for path in files_of_database(root):
        with suppress(OSError):
            keys.add(_key(path))
    return [
        User(pid, _command(pid))
        for pid in _processes()
        if pid != os.getpid() and any(_uses(link, inside, keys) for link in _descriptors(pid))
    ]


def _processes() -> Iterator[int]:
    if PROCESSES.is_dir():
        yield from sorted(int(path.name) for path in PROCESSES.iterdir() if path.name.isdigit())


def _descriptors(pid: int) -> list[Path]:
    try:
        return list((PROCESSES / str(pid) / "fd").iterdir())
    except OSError:  # gone, or not ours to see
        return []


def _uses(link: Path, inside: bytes, keys: set[tuple[int, int]]) -> bool:
    try:
        return os.fsencode(link.readlink()).startswith(inside) or _key(link) in keys
    except OSError:
        return False


def _key(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _command(pid: int) -> str:
    try:
        words = (PROCESSES / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    line = text(words.replace(b"\0", b" ").strip())
    return line if len(line) <= COMMAND_LENGTH else line[: COMMAND_LENGTH - 3] + "..."
