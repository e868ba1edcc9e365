"""Rows of ``max_seq_id``, exactly as they are: an action must be able to put one back."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from hnswcheck.store.watermarks import WatermarkRow, same_watermark


@dataclass(frozen=True, slots=True)
class WatermarkChange:
    """What becomes of the row of one segment; None for no row."""

    segment: str
    before: WatermarkRow | None
    after: WatermarkRow | None

    @property
    def reversed(self) -> WatermarkChange:
        """What takes this change back."""
        return WatermarkChange(self.segment, self.after, self.before)


def numbered(
    connection: sqlite3.Connection, before: WatermarkRow | None, seq_id: int
) -> WatermarkRow:
    """A row with this seq_id, in the place of the one ``before``, as the store's line writes it."""
    place = "SELECT coalesce(max(rowid), 0) + 1 FROM max_seq_id"
    rowid = before.rowid if before else connection.execute(place).fetchone()[0]
    columns = connection.execute("PRAGMA table_info(max_seq_id)").fetchall()
    integer = (b"seq_id", b"INTEGER") in {(name, type_.upper()) for _, name, type_, *_ in columns}
    if integer:
        return WatermarkRow(rowid, "integer", seq_id)
    return WatermarkRow(rowid, "blob", seq_id.to_bytes(8, "big").hex().upper())


def read_watermark(connection: sqlite3.Connection, segment: str) -> WatermarkRow | None:
    """The row of a segment, None if it has none."""
    row = connection.execute(
        "SELECT rowid, CAST(typeof(seq_id) AS BLOB), seq_id, hex(CAST(seq_id AS BLOB))"
        " FROM max_seq_id WHERE segment_id = ?",
        (segment,),
    ).fetchone()
    if row is None:
        return None
    rowid, type_, value, digits = row
    plain = type_ in (b"integer", b"real", b"null")
    return WatermarkRow(rowid, type_.decode(), value if plain else _text(digits))


def write_watermark(connection: sqlite3.Connection, change: WatermarkChange) -> bool:
    """Replace a row, unless it is no longer what it was ``before``; whether it was replaced."""
    segment, after = change.segment, change.after
    if not same_watermark(read_watermark(connection, segment), change.before):
        return False
    connection.execute("DELETE FROM max_seq_id WHERE segment_id = ?", (segment,))
    if after is not None:
        taken = connection.execute(
            "SELECT 1 FROM max_seq_id WHERE rowid = ?", (after.rowid,)
        ).fetchone()
        as_is = "CAST(? AS TEXT)" if after.type == "text" else "?"
        connection.execute(
            f"INSERT INTO max_seq_id (rowid, segment_id, seq_id) VALUES (?, ?, {as_is})",
            (None if taken else after.rowid, segment, after.raw),
        )
    return True


def is_written(connection: sqlite3.Connection, change: WatermarkChange) -> bool:
    """Whether the row is the new one, and not the old one."""
    row = read_watermark(connection, change.segment)
    return row != change.before and same_watermark(row, change.after)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
