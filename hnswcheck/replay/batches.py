"""The batches in which 0.x takes the log into its index, and what they forget.

0.x keeps rows in a batch, in which an id is written or deleted, until it is full. An id that a
batch deletes still has its label in the index, and the batch forgets the deletion of what it wrote
before, so that these rows do something else in one batch than in two:

* delete, add: up to 0.5.4 the add is ignored, and the record lacks its vector;
* delete, update: the id is back in the index, and no record;
* delete, add, delete: the same, from 0.5.5 on.

A collection that is opened replays the log from the start into a batch that is empty, so what it
arrives at follows from the rows and from the size of a batch.

Sources in chroma-core/chroma, 0.4.0 to 0.6.3: ``_write_records`` in
chromadb/segment/impl/vector/local_persistent_hnsw.py, ``_apply_batch`` in local_hnsw.py, and
``Batch`` in batch.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from hnswcheck.store.releases import Batches
from hnswcheck.store.wal import WalRow


@dataclass(slots=True)
class _Batch:
    """What waits to be taken into the index.

    Attributes:
        written: the operation that wrote each id last, and whether the id was new then.
        deleted: ids to be deleted; some may have no label.
    """

    written: dict[bytes, tuple[str, bool]] = field(default_factory=dict)
    deleted: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.written) + len(self.deleted)

    def write(self, row: WalRow, new: bool) -> None:
        self.written[row.id] = (row.operation or "", new or self._upserted_new(row.id))
        self.deleted.discard(row.id)

    def _upserted_new(self, id: bytes) -> bool:
        """Whether an upsert made the id, which the batch remembers whatever comes after it."""
        return id in self.written and self.written[id][1]

    def delete(self, id: bytes) -> None:
        if id not in self.written:
            self.deleted.add(id)
            return
        operation, new = self.written.pop(id)
        if operation != "add" and not (operation == "upsert" and new):
            self.deleted.add(id)


def present_after(
    rows: Iterable[WalRow], labelled: AbstractSet[bytes], size: int, batches: Batches
) -> dict[bytes, bool]:
    """Of every id in some rows, whether the index serves it after their replay.

    Args:
        rows: those past the watermark, in order.
        labelled: which of their ids the id map has.
        size: rows or changes that fill a batch, by the collection's settings.
        batches: how the release fills them, and what it does with an add of a deleted id.
    """
    labels, batch, seen, invalid = set(labelled), _Batch(), 0, 0
    touched: set[bytes] = set()
    for row in rows:
        touched.add(row.id)
        seen += 1
        there = row.id in labels or row.id in batch.written
        if row.operation == "delete":
            if there:
                batch.delete(row.id)
        elif row.vector_bytes is not None:
            again = batches != "lose readded" and row.id in batch.deleted
            if row.operation == "upsert" or there == (row.operation == "update") or again:
                batch.write(row, row.operation == "upsert" and not there)
            else:
                invalid += 1
        if _is_full(batch, seen, invalid, size, batches):
            labels = (labels - batch.deleted) | batch.written.keys()
            batch, seen = _Batch(), 0
    left = labels - batch.deleted
    return {id: id in batch.written or id in left for id in touched}


def _is_full(batch: _Batch, seen: int, invalid: int, size: int, batches: Batches) -> bool:
    """Whether the index takes it.

    Args:
        seen: rows since the batch was begun.
        invalid: rows that said nothing since the index was flushed; taken that it is not meanwhile.
    """
    match batches:
        case "lose readded":
            return len(batch) >= size
        case "count changes":
            return len(batch) + invalid >= size
        case "count rows":
            return seen >= size


def comes_back(rows: Sequence[WalRow]) -> bool:
    """Whether an id is written after it was deleted: else it does not matter where a batch ends."""
    deleted: set[bytes] = set()
    for row in rows:
        if row.operation == "delete":
            deleted.add(row.id)
        elif row.id in deleted:
            return True
    return False
