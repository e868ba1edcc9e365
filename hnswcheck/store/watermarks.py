"""A row of ``max_seq_id``, exactly as it is, and in the JSON of a manifest or journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hnswcheck.errors import FormatError
from hnswcheck.formats.text import text
from hnswcheck.store.database import Database
from hnswcheck.store.releases import Release

#: What sqlite's typeof() says.
Type = Literal["integer", "real", "text", "blob", "null"]


@dataclass(frozen=True, slots=True)
class WatermarkRow:
    """A row of ``max_seq_id``.

    Attributes:
        rowid: where it is in the table.
        type: of its seq_id.
        value: the seq_id; the bytes of a text or blob in hexadecimal.
    """

    rowid: int
    type: Type
    value: int | float | str | None

    @property
    def raw(self) -> int | float | bytes | None:
        """The seq_id as sqlite gives it, text as bytes."""
        return bytes.fromhex(self.value) if isinstance(self.value, str) else self.value


def same_watermark(one: WatermarkRow | None, other: WatermarkRow | None) -> bool:
    """Whether two rows have the same seq_id, wherever they are in the table."""
    if one is None or other is None:
        return one is other
    return (one.type, one.value) == (other.type, other.value)


def fits(*numbers: int) -> bool:
    """Whether sqlite can hold these as integers."""
    return all(-(1 << 63) <= number < 1 << 63 for number in numbers)


def watermark_from_json(found: Any) -> WatermarkRow | None:
    """The row in a manifest or journal.

    Raises:
        FormatError: it is none.
    """
    match found:
        case None:
            return None
        case {"rowid": int(rowid)} if not fits(rowid):
            raise FormatError("invalid rowid of a watermark")
        case {"rowid": int(rowid), "type": "integer", "value": int(value)} if fits(value):
            return WatermarkRow(rowid, "integer", value)
        case {"rowid": int(rowid), "type": "real", "value": float(value)}:
            return WatermarkRow(rowid, "real", value)
        case {"rowid": int(rowid), "type": "null", "value": None}:
            return WatermarkRow(rowid, "null", None)
        case {"rowid": int(rowid), "type": "text" | "blob" as type_, "value": str(value)}:
            try:
                bytes.fromhex(value)
            except ValueError as error:
                raise FormatError("invalid watermark: not hexadecimal") from error
            return WatermarkRow(rowid, type_, value)
        case _:
            raise FormatError("invalid watermark")


#: Integers past this are no counter of operations: damage that a third-party fix left.
LARGEST_SEQ_ID = 1 << 53

WatermarkForm = Literal["integer", "blob8", "blob24", "digits", "other"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """A ``max_seq_id`` row: the number, and how it is written."""

    value: int
    form: WatermarkForm

    def is_number(self, release: Release) -> bool:
        """Whether ``value`` is what Chroma takes it for, or what a writer surely meant.

        A line that writes INTEGER reads no BLOB at all.
        """
        unread = release.watermark_type == "INTEGER" and self.form == "digits"
        return self.form != "other" and not unread


def read_watermarks(database: Database) -> dict[str, Watermark]:
    """Every ``max_seq_id`` row, by segment id."""
    rows = database.rows("SELECT segment_id, seq_id FROM max_seq_id")
    return {text(segment): watermark(value) for segment, value in rows if value is not None}


def watermark(value: object) -> Watermark:
    """What a seq_id in ``max_seq_id`` is; text comes as bytes."""
    match value:
        case int():
            return Watermark(value, "integer")
        case bytes() if len(value) == 8 and value[:2] == b"\x11\x11" and value[2:].isdigit():
            return Watermark(int.from_bytes(value, "big"), "digits")
        case bytes() if len(value) in (8, 24):
            return Watermark(int.from_bytes(value, "big"), "blob8" if len(value) == 8 else "blob24")
        case bytes():
            return Watermark(0, "other")
        case _:
            return Watermark(0, "other")
