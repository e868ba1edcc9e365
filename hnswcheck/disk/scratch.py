"""A private directory outside every store, gone afterwards.

``tempfile`` alone would try the current directory in the end, which may be the store itself, and
leaves a probe file in each directory that it considers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    try:
        made = tempfile.TemporaryDirectory(prefix="hnswcheck-", dir=place)
    except OSError as error:
        raise StoreUnreadable(f"no scratch directory in {place}: {error.strerror}") from error
    with made as name:
        yield Path(name)


def _place(store: Path | None) -> Path:
    named = [os.environ[name] for name in VARIABLES if os.environ.get(name)]
    windows = [os.environ[name] for name in ("LOCALAPPDATA",) if os.environ.get(name)]
    for candidate in (*named, *USUAL, *windows):
        place = Path(candidate).resolve()
        within = store is not None and place.is_relative_to(store.resolve())
        if not within and place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            return place
    raise StoreUnreadable("no directory for scratch files outside the store; set TMPDIR")
