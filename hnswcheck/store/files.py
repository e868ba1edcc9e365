"""The files of a directory as they are at one moment."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hnswcheck.errors import StoreChanged, StoreUnreadable
from hnswcheck.store.database import DATABASE

#: Files that sqlite keeps beside a database and that belong to its content.
COMPANIONS = ("", "-journal", "-wal")

#: A file written within this time of being looked at may change again without its times showing
#: it: kernels stamp files with a clock that ticks every few milliseconds.
CLOCK_TICK_NS = 50_000_000

SETTLE_TRIES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What shows that a file is still the one that was read."""

    name: str
    device: int
    inode: int
    mode: int
    size: int
    allocated: int
    mtime_ns: int
    ctime_ns: int

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_symlink(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def changed_ns(self) -> int:
        """When content or status last changed, in nanoseconds since the epoch."""
        return max(self.mtime_ns, self.ctime_ns)

    def solid_size(self, at_least: int, compressed: int) -> int:
        """How long it is, as far as it is no mere hole.

        Args:
            at_least: so much is believed of any file.
            compressed: how much less space than it is long it may take.
        """
        return min(self.size, at_least + compressed * self.allocated)


#: Of several files; None for what is not there. Of a database: of it and its :data:`COMPANIONS`.
States = tuple[FileState | None, ...]


def look_at(path: Path) -> FileState | None:
    """The state of a file (of a symlink itself, not its target); None if it is not there.

    Raises:
        StoreUnreadable: the operating system will not say.
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    return _state(path.name, found)


def follow(path: Path) -> FileState | None:
    """The state of what a path leads to, under the path's own name; None if it leads nowhere.

    Nor does it lead anywhere where the kernel makes up the files: reading one may never end.

    Raises:
        StoreUnreadable: the operating system will not say.
    """
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise unreadable(path, error) from error
    return None if found.st_dev in _made_up() else _state(path.name, found)


@cache
def _made_up() -> frozenset[int]:
    """Devices of file systems that the kernel makes up."""
    found = set()
    for place in ("/proc", "/sys"):
        with suppress(OSError):
            found.add(Path(place).stat().st_dev)
    return frozenset(found - {Path("/").stat().st_dev})


def _state(name: str, found: os.stat_result) -> FileState:
    return FileState(
        name=name,
        device=found.st_dev,
        inode=found.st_ino,
        mode=found.st_mode,
        size=found.st_size,
        allocated=getattr(found, "st_blocks", -(-found.st_size // 512)) * 512,
        mtime_ns=found.st_mtime_ns,
        ctime_ns=found.st_ctime_ns,
    )


def unreadable(path: Path, error: OSError) -> StoreUnreadable:
    """What the operating system said of a path, as an error of ours."""
    return StoreUnreadable(f"{path}: {error.strerror or error}")


def settled_states(root: Path, folders: Sequence[Path]) -> States:
    """What chroma.sqlite3 and the files in ``folders`` are; equal later if nothing was written.

    Raises:
        StoreChanged: they are being written at this instant, and go on being written.
    """
    return settled(lambda: (*database_states(root), *states_within(folders)))


def settled(look: Callable[[], States]) -> States:
    """States of files that have come to rest: see :data:`CLOCK_TICK_NS`."""
    for _ in range(SETTLE_TRIES):
        states = look()
        now = time.time_ns()
        if all(abs(now - state.changed_ns) > CLOCK_TICK_NS for state in states if state):
            return states
        time.sleep(CLOCK_TICK_NS / 1e9)
    raise StoreChanged("the store is being written without a pause")


def states_within(folders: Sequence[Path]) -> Iterator[FileState | None]:
    """Each folder, what is in it, and what symlinks lead to; None for what is not there."""
    for folder in folders:
        state = look_at(folder)
        yield state
        with suppress(StoreUnreadable):  # said when the segment is judged
            if state is not None and state.is_symlink:
                yield follow(folder)
            for inside in list_directory(folder):
                yield inside
                if inside.is_symlink:
                    yield follow(folder / inside.name)


def free_bytes(path: Path) -> int:
    """Bytes that can still be written on the file system of a directory."""
    return shutil.disk_usage(path).free


def list_directory(folder: Path) -> list[FileState]:
    """States of what is in a folder, by name; empty if it is no folder or not there.

    Raises:
        StoreUnreadable: it may not be listed.
    """
    try:
        names = sorted(path.name for path in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreadable(folder, error) from error
    found = (look_at(folder / name) for name in names)
    return [state for state in found if state is not None]


def files_of_database(root: Path) -> list[Path]:
    """chroma.sqlite3 and its :data:`COMPANIONS`; sqlite looks for those beside a link's target."""
    database = (root / DATABASE).resolve()
    return [database.with_name(database.name + suffix) for suffix in COMPANIONS]


def database_states(root: Path) -> States:
    """chroma.sqlite3 and its companions; None for what is not there."""
    return tuple(map(look_at, files_of_database(root)))


def states_if_quiet(root: Path, folders: Sequence[Path]) -> States | None:
    """What chroma.sqlite3 and the files in ``folders`` are; None if others write to them.

    Without journals: sqlite touches them when it takes a lock, and who writes one writes the
    database, too. An empty -wal is what opening a database in WAL mode makes.
    """
    try:
        states = settled_states(root, folders)
    except StoreChanged:
        return None
    return tuple(state for state in states if state and not _is_passing(state))


def _is_passing(state: FileState) -> bool:
    return state.name.endswith("-journal") or (state.name.endswith("-wal") and not state.size)
