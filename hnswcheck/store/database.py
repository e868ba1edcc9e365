"""chroma.sqlite3, read in short statements that always end, with errors of our own kind."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from operator import call, length_hint
from pathlib import Path

from hnswcheck.errors import (
    HnswcheckError,
    NotAChromaStore,
    SchemaUnknown,
    SqliteBusy,
    SqliteDamaged,
    StoreChanged,
    StoreUnreadable,
)

DATABASE = "chroma.sqlite3"

BUSY_SECONDS = 5.0
SNAPSHOT_SECONDS = 2.0
WRITER_WAITS = "reading on would have kept a writer waiting"

#: sqlite instructions a statement may take: a fixed part, and so many per byte of the database.
#: Only a database whose pages run in circles needs more.
OPS_PER_CALLBACK = 10_000
OPS_FIXED = 50_000_000
OPS_PER_BYTE = 10

Row = tuple[object, ...]


class _Allowance:
    """How long a statement may run: so many instructions of sqlite, and until so late.

    sqlite calls a progress handler every :data:`OPS_PER_CALLBACK` instructions and stops the
    statement where it gets something true. The handler does what this would::

        def stop() -> bool:
            if self.callbacks == 0:
                return True
            self.callbacks -= 1
            return time.monotonic() > deadline

    but no Python runs in it, as sqlite throws away what a Python handler raises: Ctrl-C and
    SIGALRM, whose handlers Python runs at its next instruction, would be lost there. So it is
    ``__next__`` of an iterator that is built of iterators in C.
    """

    def __init__(self, callbacks: int, deadline: float) -> None:
        self._clocks = repeat(time.monotonic, callbacks)
        late = map(deadline.__lt__, map(call, self._clocks))
        self.stop: Callable[[], bool] = chain(late, repeat(True)).__next__

    @property
    def callbacks(self) -> int:
        """How many more calls of the handler the statement may run for."""
        return length_hint(self._clocks)


class Database:
    """chroma.sqlite3, read one short statement at a time so that no writer has to wait long.

    Text comes back as bytes: what is in there need not be UTF-8.
    """

    def __init__(self, connection: sqlite3.Connection, size: int) -> None:
        self._connection = connection
        self._callbacks = (OPS_FIXED + OPS_PER_BYTE * size) // OPS_PER_CALLBACK
        self._deadline = math.inf
        connection.text_factory = bytes
        for pragma in ("query_only=1", "trusted_schema=0", "cell_size_check=1", "temp_store=2"):
            self.rows(f"PRAGMA {pragma}")

    def _too_long(self) -> bool:
        return time.monotonic() > self._deadline

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """All rows of a statement, in a read transaction of its own.

        Raises:
            SqliteBusy, SqliteDamaged, SchemaUnknown, NotAChromaStore, StoreUnreadable.
            StoreChanged: within a snapshot, when it would take too long.
        """
        allowance = _Allowance(self._callbacks, self._deadline)
        self._connection.set_progress_handler(allowance.stop, OPS_PER_CALLBACK)
        try:
            if self._too_long():
                raise StoreChanged(WRITER_WAITS)
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            if _code(error) == sqlite3.SQLITE_INTERRUPT and allowance.callbacks:
                raise StoreChanged(WRITER_WAITS) from error
            raise translated(error) from error

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads within see one moment.

        A writer has to wait meanwhile; chromadb 1.x gives up after 5 s, so this does before.

        Raises:
            StoreChanged: the reads took longer than :data:`SNAPSHOT_SECONDS`.
        """
        self.rows("BEGIN")
        self._deadline = time.monotonic() + SNAPSHOT_SECONDS
        try:
            yield
        finally:
            self._deadline = math.inf
            self.rows("COMMIT")

    def version(self) -> object:
        """Changes whenever another connection commits."""
        return self.rows("PRAGMA data_version")[0][0]

    def close(self) -> None:
        """No more reading."""
        self._connection.close()


class NeedsCopy(StoreChanged):
    """sqlite would have to write before it could read."""


class TooLarge(SqliteDamaged):
    """A value is larger than sqlite can return."""


def _code(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def translated(error: sqlite3.Error) -> HnswcheckError:
    """What an error of sqlite means for who reads a store."""
    text = f"{DATABASE}: {error}"
    match _code(error):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return SqliteBusy(f"{DATABASE} stayed locked by another process")
        case sqlite3.SQLITE_TOOBIG:
            return TooLarge(text)
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_FORMAT:
            return SqliteDamaged(text)
        case sqlite3.SQLITE_INTERRUPT:
            return SqliteDamaged(f"{DATABASE}: its pages run in circles")
        case sqlite3.SQLITE_NOTADB:
            return NotAChromaStore(f"{DATABASE} is not a sqlite database")
        case sqlite3.SQLITE_READONLY:
            return NeedsCopy(text)
        case sqlite3.SQLITE_ERROR:
            return SchemaUnknown(text)
        case _:
            return StoreUnreadable(text)


def connect(database: Path, mode: str) -> Database:
    """Open a database file.

    Args:
        mode: "ro", or "rw" for a copy whose journal sqlite may have to roll back.

    Raises:
        HnswcheckError: sqlite cannot open it.
    """
    uri = f"{database.absolute().as_uri()}?mode={mode}"
    try:
        connection = sqlite3.connect(  # which a thread reads beside a large folder
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        return Database(connection, database.stat().st_size)
    except sqlite3.Error as error:
        raise translated(error) from error
