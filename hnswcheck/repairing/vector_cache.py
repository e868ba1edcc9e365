"""Vectors of documents, on disk as soon as they are made, so that no document is paid for twice.

One file per collection, embedding function and dimension, below the user's cache directory (on
Linux ``$XDG_CACHE_HOME/hnswcheck`` or ``~/.cache/hnswcheck``), never within a store. A header says
what it is; then come records of the SHA-256 of a document, a CRC-32 and the vector. What was cut
short by a kill or a power loss fails that check and goes.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from platformdirs import user_cache_path

from hnswcheck.errors import ActionFailed
from hnswcheck.formats.arrays import Floats, Ints
from hnswcheck.formats.text import path_text
from hnswcheck.store.scratch import scratch_directory

APPLICATION = "hnswcheck"
FOLDER = "embedded"
SUFFIX = ".vectors"
FORMAT = "hnswcheck embedded documents, 1"
DIGEST = hashlib.sha256().digest_size
#: Records looked at together when a file is read again.
CHUNK = 1 << 10


@dataclass(frozen=True, slots=True)
class Origin:
    """What made the vectors.

    Attributes:
        function: the same for the same function; None where nobody can tell, and nothing that is
            left behind is ever used again.
    """

    collection: str
    function: str | None
    dimension: int

    @property
    def header(self) -> bytes:
        """One line of JSON, which begins the file."""
        said = {"format": FORMAT, "collection": self.collection}
        said |= {"function": self.function or "", "dimension": str(self.dimension)}
        return json.dumps(said).encode() + b"\n"

    @property
    def file_name(self) -> str:
        """Of hexadecimal digits: nothing that came from a store becomes a path."""
        return hashlib.sha256(self.header).hexdigest()[:40] + SUFFIX


class KeptVectors:
    """Vectors by the SHA-256 of their documents, appended batch by batch.

    Attributes:
        places: the number of each document's vector.
    """

    def __init__(self, path: Path, file: IO[bytes], origin: Origin) -> None:
        self._path, self._file, self._header = path, file, origin.header
        self._dtype = np.dtype(
            [("document", "u1", DIGEST), ("check", "<u4"), ("vector", "<f4", origin.dimension)]
        )
        self.places: dict[bytes, int] = {}
        self._count = 0
        self._load()

    def add(self, documents: Sequence[bytes], vectors: Floats) -> None:
        """Append vectors, so that they survive this process.

        Args:
            documents: SHA-256 of each, none of which is there.
            vectors: float32 (n, dimension).

        Raises:
            ActionFailed: the system refused it.
        """
        records = np.zeros(len(documents), self._dtype)
        records["document"] = np.frombuffer(b"".join(documents), "u1").reshape(-1, DIGEST)
        records["vector"] = vectors
        records["check"] = _checks(records)
        try:
            self._file.seek(0, os.SEEK_END)
            self._file.write(records.tobytes())
            self._file.flush()
        except OSError as error:
            text = f"{path_text(self._path)}: {error.strerror or error}; nothing was changed"
            raise ActionFailed(text) from error
        self._number(documents)

    def read(self, places: Ints) -> Floats:
        """float32 (n, dimension): the vectors with these numbers."""
        offset = len(self._header)
        mapped = np.memmap(self._file, self._dtype, "r", offset, (self._count,))
        return np.asarray(mapped["vector"][places], np.float32)

    def forget(self) -> None:
        """Throw away what is there."""
        self._file.truncate(len(self._header))
        self.places.clear()
        self._count = 0

    def remove(self) -> None:
        """Leave nothing for another run: it is not needed any more."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """What was added stays for another run."""
        if not self._count:
            self.remove()
        with suppress(OSError):  # what it could not write has been said
            self._file.close()

    def _number(self, documents: Sequence[bytes]) -> None:
        for place, document in enumerate(documents, self._count):
            self.places[document] = place
        self._count += len(documents)

    def _load(self) -> None:
        """Read what an earlier run left, up to the first record that is not whole."""
        self._file.seek(0)
        if self._file.read(len(self._header)) != self._header:
            self._file.seek(0)
            self._file.truncate()
            self._file.write(self._header)
            self._file.flush()
            return
        whole = CHUNK
        while whole == CHUNK:
            data = self._file.read(CHUNK * self._dtype.itemsize)
            records = np.frombuffer(data, self._dtype, len(data) // self._dtype.itemsize)
            broken = np.flatnonzero(_checks(records) != records["check"])
            whole = int(broken[0]) if len(broken) else len(records)
            self._number([document.tobytes() for document in records["document"][:whole]])
        self._file.truncate(len(self._header) + self._count * self._dtype.itemsize)


def _checks(
    records: np.ndarray[tuple[int], np.dtype[np.void]],
) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    """uint32 (n,): the CRC-32 of each document and vector."""
    pairs = zip(records["document"], records["vector"], strict=True)
    found = (zlib.crc32(vector.tobytes(), zlib.crc32(document)) for document, vector in pairs)
    return np.fromiter(found, np.uint32, len(records))


@contextmanager
def kept_vectors(origin: Origin, store: Path, tell: Callable[[str], None]) -> Iterator[KeptVectors]:
    """The vectors that an earlier run left, and room for more.

    Where nothing can be kept for another run the room is a scratch file.

    Args:
        store: where nothing may be written.
        tell: told if nothing can be kept although it should be.

    Raises:
        StoreUnreadable, ActionFailed: there is no room at all.
    """
    with ExitStack() as stack:
        kept = _cached(origin, store, tell)
        if kept is None:
            path = stack.enter_context(scratch_directory(store)) / origin.file_name
            try:
                kept = KeptVectors(path, path.open("x+b"), origin)
            except OSError as error:
                raise ActionFailed(f"{path_text(path)}: {error.strerror or error}") from error
        stack.callback(kept.close)
        yield kept


def _cached(origin: Origin, store: Path, tell: Callable[[str], None]) -> KeptVectors | None:
    if origin.function is None:
        return None
    try:
        path = _cache_directory(store) / origin.file_name
        file = _open_alone(path)
        try:
            return KeptVectors(path, file, origin)
        except BaseException:
            file.close()
            raise
    except OSError as error:
        why = error.strerror or str(error)
        tell(
            f"the vectors cannot be kept ({why}): an interrupted run starts again from the first"
            " document"
        )
        return None


def _cache_directory(store: Path) -> Path:
    """Where the files are; made if it is not there.

    Raises:
        OSError: there can be none.
    """
    place = user_cache_path(APPLICATION, appauthor=False)
    if not place.is_absolute():  # where nobody knows the home directory
        raise OSError(f"{path_text(place)} is not an absolute path")
    if place.resolve().is_relative_to(store.resolve()):
        raise OSError("the cache directory is inside the store")
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in (place, place / FOLDER):
        folder.mkdir(mode=0o700, exist_ok=True)
    return place / FOLDER


def _open_alone(path: Path) -> IO[bytes]:
    """A file that only its owner may read, and only we write to until it is closed.

    Raises:
        OSError: it cannot be, or another process has it.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags, 0o600), "r+b")
    try:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError("the cache file is not a regular file")
        _lock(file)
        if hasattr(os, "fchmod"):
            os.fchmod(file.fileno(), 0o600)
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: IO[bytes]) -> None:
    """Keep others from writing between our records, until the file is closed."""
    try:
        import fcntl
    except ImportError:  # no POSIX here
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError("another process uses the cache file") from error
