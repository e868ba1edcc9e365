"""Which other processes have a store open?

Linux says in /proc; elsewhere psutil says it, where it is installed (extra ``processes``). Without
both sqlite's locks have to do.
"""

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
    keys = set()
    for path in files_of_database(root):
        with suppress(OSError):
            keys.add(_key(path))
    if not PROCESSES.is_dir():
        return _users_by_psutil(root.resolve(), keys)
    inside = os.fsencode(root.resolve()) + b"/"
    return [
        User(pid, _command(pid))
        for pid in _processes()
        if pid != os.getpid() and any(_uses(link, inside, keys) for link in _descriptors(pid))
    ]


def _users_by_psutil(root: Path, keys: set[tuple[int, int]]) -> list[User]:
    """The same where there is no /proc; none without psutil."""
    try:
        import psutil
    except ImportError:
        return []
    users = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):  # gone, or not ours to see
            paths = [Path(file.path) for file in process.open_files()]
            if process.pid != os.getpid() and any(_is_of(path, root, keys) for path in paths):
                users.append(User(process.pid, _shortened(" ".join(process.cmdline()))))
    return sorted(users, key=lambda user: user.pid)


def _is_of(path: Path, root: Path, keys: set[tuple[int, int]]) -> bool:
    try:
        return path.is_relative_to(root) or _key(path) in keys
    except OSError:
        return False


def _processes() -> Iterator[int]:
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
    return _shortened(text(words.replace(b"\0", b" ").strip()))


def _shortened(line: str) -> str:
    return line if len(line) <= COMMAND_LENGTH else line[: COMMAND_LENGTH - 3] + "..."
