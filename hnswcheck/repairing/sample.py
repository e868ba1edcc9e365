"""A few of the vectors that go into an index, so that they can be compared with what comes out."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnswcheck.formats.arrays import Floats, Ints
from hnswcheck.salvaging.sources import Salvaged
from hnswcheck.store.database import Database

#: So many are kept, and as many of those that are embedded anew.
SIZE = 128


class Sample:
    """A few of the vectors that go into an index, kept as they pass.

    Attributes:
        records: int64 (k,): whose they are.
        indexed: how many go into it.
    """

    def __init__(self) -> None:
        self.records: Ints = np.zeros(0, np.int64)
        self.indexed = 0
        self._kept: list[Floats] = []

    def watch(self, chosen: Ints, embedded: Ints, vectors: Iterator[Floats]) -> Iterator[Floats]:
        """The same vectors; those that are embedded anew are surely among the kept.

        Args:
            chosen: int64 (n,), ascending: the record of each vector.
            embedded: int64 (m,), ascending, of ``chosen``.
        """
        self.records = np.union1d(_spread(chosen), _spread(embedded))
        self.indexed = len(chosen)
        wanted = np.searchsorted(chosen, self.records)
        first = 0
        for chunk in vectors:
            here = wanted[(wanted >= first) & (wanted < first + len(chunk))]
            self._kept.append(chunk[here - first].copy())
            first += len(chunk)
            yield chunk

    def take(self, chosen: Ints, found: Salvaged, database: Database, dimension: int) -> None:
        """Keep a few of the vectors that an index has already, or will have by the log."""
        self.records, self.indexed = _spread(chosen), len(chosen)
        self._kept = list(found.read(self.records, database, dimension))

    @property
    def vectors(self) -> Floats:
        """float32 (k, dimension)."""
        return np.concatenate(self._kept) if self._kept else np.zeros((0, 0), np.float32)


def _spread(records: Ints) -> Ints:
    if not len(records):
        return records
    return records[np.unique(np.linspace(0, len(records) - 1, SIZE).astype(np.int64))]
