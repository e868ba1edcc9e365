"""Foreign text made fit to show: ids, names and paths need not be UTF-8."""

from __future__ import annotations

from pathlib import Path


def text(value: object) -> str:
    """A value of sqlite as str; bytes that are not UTF-8 become escapes."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return "" if value is None else str(value)


def path_text(path: Path | str) -> str:
    """A path, or a message that holds one, as str without lone surrogates."""
    return text(str(path).encode("utf-8", "surrogateescape"))
