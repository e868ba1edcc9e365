"""Rows of ``max_seq_id``, exactly as they are: an action must be able to put one back."""

from __future__ import annotations

import sqlite3

from hnswcheck.disk.watermark import WatermarkRow, same_watermark


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


def write_watermark(
    connection: sqlite3.Connection,
    segment: str,
    before: WatermarkRow | None,
    after: WatermarkRow | None,
) -> bool:
    """Replace a row, unless it is no longer what it was ``before``; whether it was replaced."""
    if not same_watermark(read_watermark(connection, segment), before):
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


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
