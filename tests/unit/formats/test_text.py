"""Foreign text is shown, whatever its bytes are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hnswcheck.formats.text import path_text, text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"plain", "plain"),
        ("größe".encode(), "größe"),
        (b"\xff\xfe", "\\xff\\xfe"),
        (None, ""),
        (7, "7"),
        ("text", "text"),
    ],
)
def test_any_value_of_sqlite_becomes_text(value: object, shown: str) -> None:
    assert text(value) == shown


def test_a_path_that_is_not_utf_8_has_no_lone_surrogates() -> None:
    shown = path_text(Path(os.fsdecode(b"/stores/\xff")))
    assert shown == "/stores/\\xff"
    shown.encode()
