"""A persist directory seen as one moment, without leaving a trace in it.

chroma.sqlite3 is opened ``mode=ro`` where sqlite can do that without writing. Where it cannot, it
is read from a private copy: a hot journal (a writer was killed inside a transaction) would have to
be rolled back, root's sqlite chowns any journal that it finds, and a database in WAL mode makes
even readers create a ``-shm`` file.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hnswcheck.errors import (
    NotAChromaStore,
    SqliteDamaged,
    StoreChanged,
    StoreNotFound,
    StoreUnreadable,
)
from hnswcheck.store.database import DATABASE, Database, NeedsCopy, connect
from hnswcheck.store.files import (
    CLOCK_TICK_NS,
    COMPANIONS,
    States,
    database_states,
    files_of_database,
    look_at,
    settled,
    states_within,
    unreadable,
)
from hnswcheck.store.scratch import scratch_directory

SQLITE_MAGIC = b"SQLite format 3\x00"

WAL_MODE_AT, WAL_MODE = 18, 2

COPY_TRIES = 5

#: A writer's journal lives as long as its transaction; one that stays is a dead writer's.
JOURNAL_SECONDS, JOURNAL_POLL_SECONDS = 0.5, 0.005


class CopyOutdated(Exception):
    """The copy that is read is no longer what the store holds: everything has to be read again."""


@dataclass(frozen=True, slots=True)
class StoreView:
    """One persist directory, open for reading.

    Attributes:
        root: the directory.
        database: its chroma.sqlite3, or a copy of it.
        opened: what the database and its companions were when it was opened.
        copied: it is a copy of them.
    """

    root: Path
    database: Database
    opened: States
    copied: bool

    def standing_still(self) -> AbstractContextManager[None]:
        """Within, StoreChanged comes in place of SqliteDamaged where the database was written."""
        return _standing_still(self.root, self.opened)

    def moment(self, folders: Sequence[Path]) -> object:
        """Equal before and after a reading if, and only if, nothing was written in between.

        Covers chroma.sqlite3 and the files in ``folders``.

        Raises:
            StoreChanged: they are being written at this instant, and go on being written.
            CopyOutdated: what is read is a copy, and the store was written.
        """
        return self.settled(folders, with_database=True), self.database.version()

    def moment_of_files(self, folders: Sequence[Path]) -> object:
        """The same for the files in ``folders`` alone."""
        return self.settled(folders, with_database=False)

    def quiet_seconds(self, folders: Sequence[Path] | None = None) -> float:
        """Seconds since a file was last written to, by the clock of the files.

        Args:
            folders: of files in these; None of chroma.sqlite3.
        """
        states = self._states(folders or (), with_database=folders is None)
        newest = max((state.mtime_ns for state in states if state), default=0)
        return abs(time.time_ns() - newest) / 1e9

    def settled(self, folders: Sequence[Path], with_database: bool) -> States:
        """The states of the files, once nobody writes to them."""
        return settled(lambda: self._states(folders, with_database))

    def _states(self, folders: Sequence[Path], with_database: bool) -> States:
        database = database_states(self.root)
        if self.copied and database != self.opened:
            raise CopyOutdated(f"{DATABASE} was written while its copy was read")
        return (*(database if with_database else ()), *states_within(folders))


@contextmanager
def open_store(path: Path) -> Iterator[StoreView]:
    """Open a persist directory without writing to it.

    Raises:
        StoreNotFound, NotAChromaStore: there is none at ``path``.
        StoreUnreadable, SqliteBusy, SqliteDamaged, StoreChanged: it cannot be read now.
    """
    database = check_path(path)
    opened = database_states(path)
    with ExitStack() as stack, _standing_still(path, opened):
        copied = False
        try:
            if _is_wal_mode(database) or _has_wal(path) or _has_lasting_journal(path):
                raise NeedsCopy(f"{DATABASE} cannot be read in place")
            connection = connect(database, "ro")
            stack.callback(connection.close)
            connection.rows("SELECT count(*) FROM sqlite_master")
        except NeedsCopy:
            stack.close()
            copied = True
            copy, opened = _copy_database(path, stack)
            connection = connect(copy, "rw")
            stack.callback(connection.close)
        yield StoreView(path, connection, opened, copied)


@contextmanager
def _standing_still(root: Path, opened: States) -> Iterator[None]:
    """Take damage for a change where the database is no longer what it was when opened.

    Not every writer waits for our lock: one that lost its own does not.

    Raises:
        StoreChanged: in place of SqliteDamaged.
    """
    try:
        yield
    except SqliteDamaged as error:
        if database_states(root) != opened:
            raise StoreChanged(f"{DATABASE} was written while it was read") from error
        raise


def find_database(path: Path) -> Path:
    """The chroma.sqlite3 of a persist directory, not opened.

    Raises:
        StoreNotFound, NotAChromaStore: there is none.
        StoreUnreadable: the operating system will not say.
    """
    try:
        if not path.exists():
            raise StoreNotFound(f"{path}: no such directory")
        if not path.is_dir():
            raise NotAChromaStore(f"{path}: not a directory")
        database = path / DATABASE
        if not database.exists():
            raise NotAChromaStore(
                f"{path}: no {DATABASE} in it, so this is not a Chroma persist directory"
            )
        if not database.is_file():
            raise NotAChromaStore(f"{database}: not a file")
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:  # a NUL in the path
        raise StoreNotFound(f"{str(path)!r}: {error}") from error
    return database


def check_path(path: Path) -> Path:
    """The chroma.sqlite3 of a persist directory, with a look at how it begins.

    Closing it drops every lock that this process has on it.

    Raises:
        StoreNotFound, NotAChromaStore: there is none.
        SqliteDamaged: it is no database, but segments lie beside it.
        StoreUnreadable: the operating system will not say.
    """
    database = find_database(path)
    try:
        with database.open("rb") as file:
            head = file.read(len(SQLITE_MAGIC))
        segments = head != SQLITE_MAGIC and _holds_segments(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if head != SQLITE_MAGIC:
        what = "is empty" if not head else "is not a sqlite database"
        if segments:
            raise SqliteDamaged(f"{database} {what}, but vector segments lie beside it")
        raise NotAChromaStore(f"{database} {what}")
    return database


def _holds_segments(root: Path) -> bool:
    return any((folder / "header.bin").exists() for folder in root.iterdir())


def _is_wal_mode(database: Path) -> bool:
    with database.open("rb") as file:
        head = file.read(WAL_MODE_AT + 2)
    return WAL_MODE in head[WAL_MODE_AT:]


def _has_wal(root: Path) -> bool:
    """sqlite takes up any -wal that it finds, whatever the header says, and makes a -shm."""
    return look_at(files_of_database(root)[2]) is not None


def _has_lasting_journal(root: Path) -> bool:
    """Whether a journal is there that no living writer removes."""
    until = time.monotonic() + JOURNAL_SECONDS
    while look_at(files_of_database(root)[1]) is not None:
        if time.monotonic() > until:
            return True
        time.sleep(JOURNAL_POLL_SECONDS)
    return False


@contextmanager
def copied_database(root: Path) -> Iterator[Path]:
    """A private copy of chroma.sqlite3 with its journal or WAL, gone afterwards.

    Raises:
        StoreChanged, StoreUnreadable: it could not be copied.
    """
    with ExitStack() as stack:
        yield _copy_database(root, stack)[0]


def _copy_database(root: Path, stack: ExitStack) -> tuple[Path, States]:
    """Copy chroma.sqlite3 and its journal or WAL to scratch, proving that they stood still."""
    scratch = stack.enter_context(scratch_directory(root))
    for _ in range(COPY_TRIES):
        before = database_states(root)
        files = files_of_database(root)
        for path, state in zip(files, before, strict=True):
            if state is not None and not state.is_file:
                raise StoreUnreadable(f"{path} is not a regular file")
        needed = sum(state.size for state in before if state)
        free = shutil.disk_usage(scratch).free
        if needed > free:
            text = f"{DATABASE} has to be copied: {needed} bytes, but {scratch.parent} has {free}"
            raise StoreUnreadable(text)
        try:
            for suffix, path, state in zip(COMPANIONS, files, before, strict=True):
                target = scratch / (DATABASE + suffix)
                target.unlink(missing_ok=True)
                if state is not None:
                    shutil.copyfile(path, target)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unreadable(root / DATABASE, error) from error
        now = time.time_ns()
        written_just_now = any(s and abs(now - s.changed_ns) < CLOCK_TICK_NS for s in before)
        if not written_just_now and database_states(root) == before:
            return scratch / DATABASE, before
        time.sleep(CLOCK_TICK_NS / 1e9)
    raise StoreChanged(f"{DATABASE} changed each time it was copied")
