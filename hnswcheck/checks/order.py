"""Whose element is it, when the id map is gone?

Chroma 1.x hands out labels in the order of the log, and sqlite makes rows in the same order: the
live labels, ascending, are the ids of one moment in the order of their rows. Which moment it was
the log tells: it holds everything since the last flush that sqlite knows of, so that the ids at
each later moment are known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hnswcheck.disk.labels import Labels
from hnswcheck.disk.records import Records
from hnswcheck.disk.strings import find
from hnswcheck.disk.wal import WalRow


@dataclass(frozen=True, slots=True)
class Order:
    """A moment at which the files may have been written.

    Attributes:
        moment: the last operation that they hold.
        labels: uint64 (n,): the label of each record, 0 for those that were made later.
        vectors: what the log says of them: seq_id by label.
    """

    moment: int
    labels: Labels
    vectors: dict[int, int]


@dataclass(slots=True)
class _Ids:
    """The ids of one moment, and then of the next.

    Attributes:
        unplaced: were there at the flush, but where nobody knows, as their rows are gone by now.
        old: were there at the flush, in the order of their rows.
        made: made since, in the order of the log.
        vectors: the row that wrote the vector of each, as far as the log has it.
    """

    unplaced: set[bytes]
    old: dict[bytes, None]
    made: dict[bytes, None]
    vectors: dict[bytes, int]

    def apply(self, row: WalRow) -> None:
        exists = row.id in self.made or row.id in self.old or row.id in self.unplaced
        match row.operation:
            case "delete":
                self.unplaced.discard(row.id)
                for ids in (self.old, self.made, self.vectors):
                    ids.pop(row.id, None)
            case "add" | "upsert" if not exists:
                self.made[row.id] = None
                self.vectors[row.id] = row.seq_id
            case "update" | "upsert" if exists and row.vector_bytes is not None:
                self.vectors[row.id] = row.seq_id
            case _:
                pass


def possible_orders(
    records: Records,
    rows: Sequence[WalRow],
    flushed: int,
    known: Mapping[bytes, int],
    live: Labels,
) -> Iterator[Order]:
    """Every moment since the last flush whose ids are as many as the live labels.

    Args:
        records: the records after replay.
        rows: all that the log has of the collection, in order.
        flushed: VECTOR's watermark.
        known: the rows up to there that wrote the vector of an id.
        live: uint64, ascending: the labels of live elements.
    """
    pending = [row for row in rows if row.seq_id > flushed]
    ids = _at_the_flush(records, pending, flushed)
    ids.vectors.update(known)
    place = find({row.id for row in rows}, records.ids)
    touched = {place[row.id] for row in pending if row.id in place}
    untouched = np.setdiff1d(np.arange(len(records.ids)), np.array(sorted(touched), np.int64))
    for row in (None, *pending):
        if row is not None:
            ids.apply(row)
        if ids.unplaced or len(untouched) + len(ids.old) + len(ids.made) != len(live):
            continue
        old = np.sort(np.append(untouched, [place[id] for id in ids.old]).astype(np.int64))
        labels = np.zeros(len(records.ids), np.uint64)
        labels[old] = live[: len(old)]
        new = dict(zip(ids.made, live[len(old) :].tolist(), strict=True))
        for id, label in new.items():
            if id in place:
                labels[place[id]] = label
        vectors = {
            new[id] if id in new else int(labels[place[id]]): seq_id
            for id, seq_id in ids.vectors.items()
            if id in new or (id in place and labels[place[id]])
        }
        yield Order(row.seq_id if row else flushed, labels, vectors)


def _at_the_flush(records: Records, pending: Sequence[WalRow], flushed: int) -> _Ids:
    first: dict[bytes, WalRow] = {}
    for row in pending:
        first.setdefault(row.id, row)
    place = find(first, records.ids)
    known = int(records.rowids[records.seq_ids <= flushed].max(initial=-1 << 62))
    old: dict[bytes, None] = {}
    unplaced: set[bytes] = set()
    deleted = {row.id for row in pending if row.operation == "delete"}
    for id, row in first.items():
        later = id in place and int(records.rowids[place[id]]) > known
        if id in place and not later:
            old[id] = None
        elif row.operation in ("update", "delete") or (row.operation == "upsert" and not later):
            if id in deleted or id not in place:
                unplaced.add(id)
            else:
                old[id] = None
    return _Ids(unplaced, old, {}, {})


def proven_order(
    orders: Iterator[Order], flushed: int, agrees: Callable[[dict[int, int]], bool]
) -> tuple[Order | None, bool]:
    """The order that the log confirms, and whether that is a proof.

    Proof is that the log's vectors are those of the elements, at least one of them written since
    the flush, and that no other moment gives a record another label. Else it is an inference:
    pages that a loss of power took back are older than the flush.

    Args:
        flushed: VECTOR's watermark.
        agrees: whether the elements of labels hold the vectors of rows of the log.
    """
    fitting = [order for order in orders if agrees(order.vectors)]
    if not fitting:
        return None, False
    best = max(fitting, key=lambda order: (len(order.vectors), order.moment))
    contradicted = any(
        ((order.labels != best.labels) & (order.labels > 0) & (best.labels > 0)).any()
        for order in fitting
    )
    if contradicted:
        return None, False
    return best, any(seq_id > flushed for seq_id in best.vectors.values())
