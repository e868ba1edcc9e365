"""The progress protocol and its silent default."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told how far a reading is; both numbers are bytes, the total an estimate."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """So much of ``what`` is done."""


def silent(done: int, total: int, what: str) -> None:
    """No progress shown."""
