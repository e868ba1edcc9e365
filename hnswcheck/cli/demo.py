"""A small damaged store that real Chroma wrote, shipped with the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hnswcheck.errors import StoreUnreadable

ARCHIVE = "demo.tar.xz"
ABOUT = """\
chromadb 1.5.9 wrote this store. Then its segment folder was replaced by an
older copy, as a file-by-file backup of a running Chroma does. Chroma opens the
store without an error, and count() is full. The audit below reads sqlite and
the index and compares them id by id. Read the columns "sqlite" and "index"
first, then the findings, then the verdict in the last line.
"""


@contextmanager
def unpacked_demo() -> Iterator[tuple[Path, str]]:
    """(persist directory, what happened to it); the directory is gone afterwards.

    Raises:
        StoreUnreadable: there is no room to unpack it.
    """
    import tarfile
    from importlib.resources import files
    from io import BytesIO

    from hnswcheck.store.scratch import scratch_directory

    data = files("hnswcheck").joinpath(ARCHIVE).read_bytes()
    with scratch_directory() as scratch:
        try:
            with tarfile.open(fileobj=BytesIO(data)) as archive:
                archive.extractall(scratch, filter="data")
        except OSError as error:
            raise StoreUnreadable(f"{scratch}: {error.strerror}") from error
        yield scratch, ABOUT
