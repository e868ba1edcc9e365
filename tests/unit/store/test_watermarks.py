"""Watermarks: the number, how it is written, and the row as JSON."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from hnswcheck.errors import FormatError
from hnswcheck.json_documents import from_plain
from hnswcheck.store.releases import RELEASES
from hnswcheck.store.watermarks import (
    Watermark,
    WatermarkRow,
    fits,
    same_watermark,
    watermark,
)

DIGITS = b"\x11\x11" + b"000042"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, Watermark(42, "integer")),
        (-1, Watermark(-1, "integer")),
        ((42).to_bytes(8, "big"), Watermark(42, "blob8")),
        ((42).to_bytes(24, "big"), Watermark(42, "blob24")),
        (DIGITS, Watermark(int.from_bytes(DIGITS, "big"), "digits")),
        (b"\x11\x11" + b"00004x", Watermark(int.from_bytes(b"\x11\x1100004x", "big"), "blob8")),
        (b"\x11\x12" + b"000042", Watermark(int.from_bytes(b"\x11\x12000042", "big"), "blob8")),
        (bytes(7), Watermark(0, "other")),
        (bytes(9), Watermark(0, "other")),
        (b"", Watermark(0, "other")),
        (1.5, Watermark(0, "other")),
    ],
)
def test_the_form_of_a_watermark_follows_from_its_bytes(value: object, expected: Watermark) -> None:
    assert watermark(value) == expected


@pytest.mark.parametrize("line", RELEASES)
def test_a_release_that_writes_integers_takes_no_digits(line: str) -> None:
    release = RELEASES[line]
    assert Watermark(1, "integer").is_number(release)
    assert Watermark(1, "digits").is_number(release) == (release.watermark_type == "BLOB")
    assert not Watermark(0, "other").is_number(release)


ROWS = [
    WatermarkRow(1, "integer", 42),
    WatermarkRow(-(1 << 63), "integer", (1 << 63) - 1),
    WatermarkRow(1, "real", 1.5),
    WatermarkRow(1, "null", None),
    WatermarkRow(1, "blob", "00ff"),
    WatermarkRow(1, "text", "3432"),
]


@pytest.mark.parametrize("row", ROWS)
def test_a_row_comes_back_from_json_as_it_was(row: WatermarkRow) -> None:
    assert from_plain(asdict(row), WatermarkRow, "watermark") == row


@pytest.mark.parametrize(
    "found",
    [
        {},
        [],
        7,
        {"rowid": 1, "type": "integer"},
        {"rowid": "1", "type": "integer", "value": 1},
        {"rowid": 1 << 63, "type": "integer", "value": 1},
        {"rowid": 1, "type": "integer", "value": 1 << 63},
        {"rowid": 1, "type": "integer", "value": "1"},
        {"rowid": 1, "type": "real", "value": "1.5"},
        {"rowid": 1, "type": "null", "value": 0},
        {"rowid": 1, "type": "blob", "value": "0"},
        {"rowid": 1, "type": "text", "value": "no hex"},
        {"rowid": 1, "type": "blob", "value": None},
        {"rowid": 1, "type": "date", "value": "00"},
    ],
)
def test_what_is_no_row_is_refused(found: object) -> None:
    with pytest.raises(FormatError):
        from_plain(found, WatermarkRow, "watermark")


def test_raw_is_what_sqlite_gives() -> None:
    assert [row.raw for row in ROWS] == [42, (1 << 63) - 1, 1.5, None, b"\x00\xff", b"42"]


def test_two_watermarks_are_the_same_wherever_they_stand() -> None:
    row = ROWS[0]
    assert same_watermark(row, replace(row, rowid=9))
    assert same_watermark(None, None)
    assert not same_watermark(row, None)
    assert not same_watermark(row, replace(row, value=43))
    assert not same_watermark(WatermarkRow(1, "blob", "00"), WatermarkRow(1, "text", "00"))


def test_sqlite_holds_64_bits() -> None:
    assert fits(-(1 << 63), (1 << 63) - 1)
    assert not fits(0, 1 << 63)
    assert not fits(-(1 << 63) - 1)
