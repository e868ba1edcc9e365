"""A store for ourselves: sqlite's exclusive lock, and nobody who could have read before it."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from hnswcheck.changes.processes import users_of
from hnswcheck.errors import SqliteBusy, StoreInUse, StoreUnreadable
from hnswcheck.isolation import sole_use
from hnswcheck.store.database import DATABASE, NeedsCopy, translated
from hnswcheck.store.view import check_path

POLL_SECONDS = 0.2

#: A reader that is about to finish is waited for.
BUSY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Held:
    """A store that nobody else uses.

    Attributes:
        connection: to its chroma.sqlite3, within an exclusive transaction. Text comes as bytes.
    """

    root: Path
    connection: sqlite3.Connection

    def highest_seq_id(self) -> int:
        """The last of the WAL; 0 if it is empty."""
        return self._rows_and_last("")[1]

    def log_of(self, collection: str) -> tuple[int, int]:
        """How many rows of a collection the WAL has, and the seq_id of the last; 0 without any."""
        return self._rows_and_last("WHERE topic LIKE '%/' || ?", collection)

    def _rows_and_last(self, where: str, *values: str) -> tuple[int, int]:
        query = f"SELECT count(*), max(seq_id) FROM embeddings_queue {where}"
        rows, last = self.connection.execute(query, values).fetchone()
        return rows, last if isinstance(last, int) else 0

    def commit(self) -> None:
        """Make what was written last; others may use the store from here on."""
        self.connection.execute("COMMIT")


@contextmanager
def hold(root: Path, wait: float = 0.0) -> Iterator[Held]:
    """Keep a store for ourselves; what is not committed at the end is rolled back.

    The lock is taken first and processes are looked for then: who opens the store later cannot
    read it, and who has read it earlier still has it open.

    Args:
        wait: seconds to wait for others to leave.

    Raises:
        StoreInUse: another process, or this one, has the store open.
        StoreNotFound, NotAChromaStore: there is none.
        HnswcheckError: sqlite cannot lock it.
    """
    until = time.monotonic() + wait
    with reading(root):
        database = check_path(root)
        while True:
            with closing(_connection(database)) as connection:
                locked = _lock(connection)
                users = users_of(root)
                if locked and not users:
                    try:
                        yield Held(root, connection)
                    finally:
                        if connection.in_transaction:
                            connection.rollback()
                    return
            left = until - time.monotonic()
            if left <= 0:
                others = ", ".join(map(str, users)) or "a process that hnswcheck cannot see"
                raise StoreInUse(f"{root}: in use by {others}; stop it first, or use --wait")
            time.sleep(min(POLL_SECONDS, left))


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """Nothing else in this process reads the database meanwhile, which would drop its locks.

    Raises:
        StoreInUse: something in this process has it open.
    """
    with sole_use(root / DATABASE) as sole:
        if not sole:
            raise StoreInUse(f"{root}: this process itself ({os.getpid()}) has the store open")
        yield


def _connection(database: Path) -> sqlite3.Connection:
    uri = f"{database.absolute().as_uri()}?mode=rw"
    try:
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    except sqlite3.Error as error:
        raise translated(error) from error
    connection.text_factory = bytes
    return connection


def _lock(connection: sqlite3.Connection) -> bool:
    try:
        # A journal must not come back after a power loss: EXTRA syncs the directory as well.
        for statement in ("trusted_schema=0", "cell_size_check=1", "synchronous=EXTRA"):
            connection.execute(f"PRAGMA {statement}")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.Error as error:
        problem = translated(error)
        if isinstance(problem, SqliteBusy):
            return False
        if isinstance(problem, NeedsCopy):
            raise StoreUnreadable(f"{DATABASE} cannot be written: {error}") from error
        raise problem from error
    return True
