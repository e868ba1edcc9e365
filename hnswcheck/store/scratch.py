"""A private directory outside every store, gone afterwards.

``tempfile`` alone would try the current directory in the end, which may be the store itself, and
leaves a probe file in each directory that it considers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

from hnswcheck.errors import StoreUnreadable

VARIABLES = ("TMPDIR", "TEMP", "TMP")
USUAL = ("/tmp", "/var/tmp", "/usr/tmp")


@contextmanager
def scratch_directory(store: Path | None = None) -> Iterator[Path]:
    """A new directory below $TMPDIR or a usual place, never within ``store``.

    Raises:
        StoreUnreadable: there is no place for one.
    """
    place = _place(store)
    made = place / f"hnswcheck-{token_hex(8)}"  # known before it is there: a signal may come then
    try:
        try:
            made.mkdir(mode=0o700)
        except OSError as error:
            raise StoreUnreadable(f"no scratch directory in {place}: {error.strerror}") from error
        yield made
    finally:
        _remove(made)


def _remove(made: Path) -> None:
    """Remove it even where a signal comes; nothing that was read is wrong where that fails."""
    try:
        shutil.rmtree(made)
    except BaseException as error:
        shutil.rmtree(made, ignore_errors=True)
        if not isinstance(error, OSError):
            raise


def _place(store: Path | None) -> Path:
    named = [os.environ[name] for name in VARIABLES if os.environ.get(name)]
    windows = [os.environ[name] for name in ("LOCALAPPDATA",) if os.environ.get(name)]
    for candidate in (*named, *USUAL, *windows):
        place = Path(candidate).resolve()
        within = store is not None and place.is_relative_to(store.resolve())
        if not within and place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            return place
    raise StoreUnreadable("no directory for scratch files outside the store; set TMPDIR")
