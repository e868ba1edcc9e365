"""A row of ``max_seq_id``, exactly as it is, and in the JSON of a manifest or journal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hnswcheck.errors import FormatError

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
            raise FormatError("a rowid that is none")
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
                raise FormatError("a watermark that is not hexadecimal") from error
            return WatermarkRow(rowid, type_, value)
        case _:
            raise FormatError("a watermark that is none")
