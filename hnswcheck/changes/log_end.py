"""A row that says nothing, at the end of a log that is empty.

sqlite counts the rows of an empty log from 1 again: the next writes get numbers that the watermarks
are already past, and Chroma never applies them. 0.x, for which the watermark 0 means "from now on",
has no watermark that would let it. With a row at the number that was reached, the next write gets
the number after it, in every release. The row deletes a record that nobody has.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

#: The record id that the row names.
NOBODY = "hnswcheck-end-of-log"
DELETE = 3
#: A time is what the column needs; a fixed one makes the row the same, however often it is written.
EPOCH = "1970-01-01 00:00:00"


@dataclass(frozen=True, slots=True)
class LogEnd:
    """The row.

    Attributes:
        seq_id: its number, which the log had reached.
        topic: of the collection whose repair adds it.
        adds: False to take it away again.
    """

    seq_id: int
    topic: str
    adds: bool = True

    def write(self, connection: sqlite3.Connection) -> None:
        """Add the row to a log that is empty, or take it away."""
        if not self.adds:
            connection.execute(
                "DELETE FROM embeddings_queue WHERE seq_id = ? AND id = ?", (self.seq_id, NOBODY)
            )
        elif connection.execute("SELECT 1 FROM embeddings_queue LIMIT 1").fetchone() is None:
            connection.execute(
                "INSERT INTO embeddings_queue (seq_id, created_at, operation, topic, id)"
                " VALUES (?, ?, ?, ?, ?)",
                (self.seq_id, EPOCH, DELETE, self.topic, NOBODY),
            )

    def is_written(self, connection: sqlite3.Connection) -> bool:
        """Whether the row is there, or gone, as it should be."""
        row = connection.execute(
            "SELECT 1 FROM embeddings_queue WHERE seq_id = ? AND id = ?", (self.seq_id, NOBODY)
        ).fetchone()
        return (row is not None) is self.adds
