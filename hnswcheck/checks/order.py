"""Whose element is it, when the id map is gone?

Chroma 1.x hands out labels in the order of the log, and sqlite makes rows in the same order: the
live labels, ascending, are the ids of one moment in the order of their rows. Which moment it was
the log tells: it holds everything since the last flush that sqlite knows of, so that the ids at
each later moment, and which labels were deleted again by then, are known exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hnswcheck.disk.level0 import Elements
from hnswcheck.disk.records import Records
from hnswcheck.disk.strings import Ints, find
from hnswcheck.disk.wal import WalRow


@dataclass(frozen=True, slots=True)
class Order:
    """A moment at which the files may have been written.

    Attributes:
        moment: the last operation that they hold.
        labels: uint64 (n,): the label of each record, 0 for those that were made later.
        vectors: what the log wrote since the last flush: seq_id by label.
    """

    moment: int
    labels: np.ndarray[tuple[int], np.dtype[np.uint64]]
    vectors: dict[int, int]


@dataclass(slots=True)
class _State:
    """The ids at a moment; those that were made since the flush, in the order of their making."""

    made: list[bytes] = field(default_factory=list)
    position: dict[bytes, int] = field(default_factory=dict)  # in ``made``, of those that exist
    old_deleted: set[bytes] = field(default_factory=set)
    vectors: dict[bytes, int] = field(default_factory=dict)


def possible_orders(
    records: Records, rows: Sequence[WalRow], flushed: int, elements: Elements
) -> Iterator[Order]:
    """Every moment since the last flush whose ids are as many as the live labels, and fit them.

    Args:
        records: the records after replay.
        rows: all that the log has of the collection, in order.
        flushed: VECTOR's watermark.
    """
    live = np.sort(elements.labels[~elements.tombstoned])
    dead = set(elements.labels[elements.tombstoned].tolist())
    total = int(elements.labels.max(initial=0))
    pending = [row for row in rows if row.seq_id > flushed]
    touched = find({row.id for row in pending}, records.ids)
    first: dict[bytes, WalRow] = {}
    for row in pending:
        first.setdefault(row.id, row)
    known = records.rowids[records.seq_ids <= flushed].max(initial=-1 << 62)
    new = {
        record
        for record, row in first.items()
        if row.operation in ("add", "upsert")
        and (record not in touched or records.rowids[touched[record]] > known)
    }
    lost = {record for record in first if record not in touched and record not in new}
    old = np.ones(len(records.ids), bool)
    old[[touched[record] for record in new if record in touched]] = False
    old_records = np.flatnonzero(old)
    state = _State()
    if not lost:
        yield from _fitting(state, flushed, records, old_records, live, dead, total)
    for row in pending:
        _apply(state, row, new)
        if lost - state.old_deleted:
            continue  # the place of a record that was deleted later is not known
        yield from _fitting(state, row.seq_id, records, old_records, live, dead, total)


def _apply(state: _State, row: WalRow, new: set[bytes]) -> None:
    exists = row.id in state.position or (row.id not in new and row.id not in state.old_deleted)
    match row.operation:
        case "delete" if exists:
            if state.position.pop(row.id, None) is None:
                state.old_deleted.add(row.id)
            state.vectors.pop(row.id, None)
        case "add" | "upsert" if not exists:
            state.position[row.id] = len(state.made)
            state.made.append(row.id)
            state.vectors[row.id] = row.seq_id
        case "update" | "upsert" if exists and row.vector_bytes is not None:
            state.vectors[row.id] = row.seq_id
        case _:
            pass


def _fitting(
    state: _State,
    moment: int,
    records: Records,
    old: Ints,
    live: np.ndarray[tuple[int], np.dtype[np.uint64]],
    dead: set[int],
    total: int,
) -> Iterator[Order]:
    gone = len(state.old_deleted)
    if len(old) - gone + len(state.position) != len(live) or len(state.made) > total:
        return
    handed_out = total - len(state.made)  # before the first that was made since
    at = {record: handed_out + 1 + place for record, place in state.position.items()}
    born_dead = set(range(handed_out + 1, total + 1)) - set(at.values())
    if not born_dead <= dead or int(np.count_nonzero(live > handed_out)) != len(at):
        return
    removed = find(state.old_deleted, records.ids)
    stay = old[~np.isin(old, list(removed.values()))]
    if len(stay) + len(at) != len(live):
        return
    labels = np.zeros(len(records.ids), np.uint64)
    labels[stay] = live[: len(stay)]
    for record, place in find(at, records.ids).items():
        labels[place] = at[record]
    vectors = {}
    where = find(state.vectors, records.ids)
    for record, seq_id in state.vectors.items():
        if record in at:
            vectors[at[record]] = seq_id
        elif record in where:
            vectors[int(labels[where[record]])] = seq_id
    yield Order(moment, labels, vectors)


def proven_order(
    orders: Iterator[Order], agrees: Callable[[dict[int, int]], bool]
) -> tuple[Order | None, bool]:
    """The order that the log confirms, and whether that is a proof.

    Proof is that the log's vectors since the flush, at least one, are those of the elements, and
    that no other moment gives a record another label. Without any such vector it is an inference.

    Args:
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
    return best, bool(best.vectors)
