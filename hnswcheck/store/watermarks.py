"""A row of ``max_seq_id``, exactly as it is, and in the JSON of a manifest or journal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from hnswcheck.formats.text import text
from hnswcheck.store.database import Database
from hnswcheck.store.releases import Release

HEXADECIMAL = re.compile(r"([0-9A-Fa-f]{2})*")
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

    def __post_init__(self) -> None:
        if not (fits(self.rowid) and self._is_sound()):
            raise ValueError("invalid watermark")

    def _is_sound(self) -> bool:
        match self.type, self.value:
            case "integer", int(value):
                return fits(value)
            case ("real", float()) | ("null", None):
                return True
            case "text" | "blob", str(value):
                return HEXADECIMAL.fullmatch(value) is not None
            case _:
                return False

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


#: Integers past this are no counter of operations: damage that a third-party fix left.
LARGEST_SEQ_ID = 1 << 53

WatermarkForm = Literal["integer", "blob8", "blob24", "digits", "pickled", "other"]


@dataclass(frozen=True, slots=True)
class Watermark:
    """A ``max_seq_id`` row: the number, and how it is written; "pickled" in an id map."""

    value: int
    form: WatermarkForm

    def is_number(self, release: Release) -> bool:
        """Whether ``value`` is what Chroma takes it for, or what a writer surely meant.

        A line that writes INTEGER reads no BLOB at all.
        """
        unread = release.watermark_type == "INTEGER" and self.form == "digits"
        return self.form != "other" and not unread

    def is_possible(self, release: Release, highest: int) -> bool:
        """Whether the log can have reached it, and the line goes on from there.

        Args:
            highest: the last seq_id of the log.
        """
        if self.value == 0 and release.zero_skips_all:
            return False
        return release.before_all <= self.value <= min(highest, LARGEST_SEQ_ID)

    def start(self, release: Release, highest: int) -> int:
        """The seq_id after which a line replays the log.

        Args:
            highest: the last seq_id of the log.
        """
        return highest if self.value == 0 and release.zero_skips_all else self.value


def written(start: int) -> str:
    """A watermark as text; below 0 it only says that all of the log is to be replayed."""
    return str(start) if start >= 0 else "before all of the log"


def read_watermarks(database: Database, converted: bool = False) -> dict[str, Watermark]:
    """Every ``max_seq_id`` row, by segment id.

    Args:
        converted: as a 1.x has them that migrates the store.
    """
    rows = database.rows("SELECT segment_id, seq_id FROM max_seq_id")
    if converted:
        return {text(segment): Watermark(integer_of(v), "integer") for segment, v in rows}
    return {text(segment): watermark(value) for segment, value in rows if value is not None}


def integer_of(value: object) -> int:
    """The INTEGER that migration 5 of metadb makes of a seq_id, whatever that was.

    It adds up the last 16 digits of sqlite's ``hex()``, which is what a BLOB needs. Of a number it
    takes the digits for characters; a digit that is not there counts 1, as an empty text is found
    in every other.
    """
    raw = value if isinstance(value, bytes) else b"" if value is None else str(value).encode()
    number = int(raw.hex()[-16:].rjust(16, "1"), 16)
    return number - (1 << 64) if number >> 63 else number


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
