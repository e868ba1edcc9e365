"""Rows of the log that sqlite's records never applied, although METADATA's watermark is past them.

The log's numbers go up by one from the largest that it holds. So they are given again once somebody
emptied it, or cut its end off; and what is written then has numbers at or below the watermarks.
Chroma takes these rows for applied: METADATA skips them at every open, and VECTOR does where its
watermark is as far. Chroma itself never takes the last row of a collection out of the log.

That a row was never applied shows in two ways. A record that the row changes or deletes still has
the number of an earlier operation. Or a number was certainly given again, as a record has it from
another operation than the log: then all rows from there on are of the time since, and METADATA
skips them in order until its watermark; so none of them took effect as long as no record shows the
effect of one. A record that is not there proves nothing alone: somebody may have deleted it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from hnswcheck.errors import SqliteDamaged
from hnswcheck.store.database import Database
from hnswcheck.store.records import seq_id_number
from hnswcheck.store.schema import integer
from hnswcheck.store.wal import OPERATIONS, PAGE_WAL_ROWS, WalRow, collection_of
from hnswcheck.store.watermarks import LARGEST_SEQ_ID

#: Below and above every number.
BEFORE_ALL, NEVER = -1 << 63, (1 << 63) - 1
#: What makes a record that is not there.
MAKERS = ("add", "upsert")
#: What changes or removes one that is there.
CHANGERS = ("update", "upsert", "delete")

#: A row of the log beside the record of its id, if there is one.
BESIDE_RECORDS = """
FROM embeddings_queue q
JOIN segments s ON s.scope = 'METADATA' AND s.collection = substr(q.topic, -36)
LEFT JOIN embeddings e ON e.segment_id = s.id AND e.embedding_id = q.id
"""
#: The row is the last operation on its record.
IS_THE_LAST = """
CASE typeof(e.seq_id) WHEN 'blob' THEN hex(e.seq_id) = printf('%016X', q.seq_id)
ELSE e.seq_id IS q.seq_id END
"""
OTHERS = (
    f"SELECT q.seq_id, q.topic, q.operation, q.id, e.id, e.seq_id {BESIDE_RECORDS}"
    f" WHERE q.seq_id > ? AND NOT ({IS_THE_LAST}) ORDER BY q.seq_id LIMIT ?"
)
LAST_OF_RECORDS = (
    f"SELECT min(q.seq_id), max(q.seq_id) {BESIDE_RECORDS}"
    f" WHERE q.seq_id >= ? AND s.collection = CAST(? AS TEXT) AND {IS_THE_LAST}"
)
#: Which numbers of some operations the log has, with their collections and ids.
ROWS_NUMBERED = """
SELECT q.seq_id, q.topic, q.id FROM json_each(?) AS number
CROSS JOIN embeddings_queue q ON q.seq_id = number.value
"""
#: Records of collections that are there, with their last operations.
RECORDS = """
SELECT e.id, s.collection, e.embedding_id, e.seq_id FROM embeddings e
JOIN segments s ON s.id = e.segment_id AND s.scope = 'METADATA'
JOIN collections c ON c.id = s.collection
WHERE e.id > ? ORDER BY e.id LIMIT ?
"""


class UnappliedRows(NamedTuple):
    """What METADATA's watermark skips of the log of one collection, though it was never applied.

    Attributes:
        rows: those that were certainly never applied, and would have changed something.
        first: METADATA has to begin again with this row to apply them; 0 where there are none.
        doubtful: adds and upserts that were never applied, or were applied and undone by rows that
            the log lost.
        before: the first row since that METADATA applied for sure; above all where there is none.
    """

    rows: tuple[WalRow, ...] = ()
    first: int = 0
    doubtful: tuple[int, ...] = ()
    before: int = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class _Other:
    """A row of the log that is not the last operation on its record.

    Attributes:
        operation: as the log has it.
        exists: there is a record of its id.
        last: the last operation on the record; None where that is no number.
    """

    seq_id: int
    collection: str
    operation: object
    id: object
    exists: bool
    last: int | None

    @property
    def name(self) -> str | None:
        """The operation in words, None for one that Chroma does not know."""
        code = self.operation
        known = isinstance(code, int) and 0 <= code < len(OPERATIONS)
        return OPERATIONS[code] if known and isinstance(code, int) else None


class Unapplied:
    """Looks for such rows, in all collections of a store at once and in each one that has some."""

    def __init__(
        self,
        database: Database,
        starts: Mapping[str, int],
        rows_of: Callable[[str], Sequence[WalRow]],
    ) -> None:
        """Read nothing yet.

        Args:
            starts: METADATA's watermark of each collection.
            rows_of: all rows of a collection, as :func:`hnswcheck.store.wal.legible` has them.
        """
        self._database = database
        self._starts = starts
        self._rows_of = rows_of
        self._suspects: AbstractSet[str] | None = None
        self._others_by_collection: Mapping[str, Sequence[_Other]] | None = None
        self._given_again: list[int] | None = None

    def of(self, collection: str) -> UnappliedRows:
        """The rows of one collection.

        Raises:
            HnswcheckError: sqlite cannot be read.
        """
        if self._suspects is None:
            self._suspects = self._find_suspects()
        if collection not in self._suspects:
            return UnappliedRows()
        return self._examine(collection)

    def first_given_again(self) -> int | None:
        """The least number that the log certainly gave to two operations; None without any.

        Reads all records of the store once.
        """
        if self._given_again is None:
            self._given_again = list(self._find_given_again())
        return min(self._given_again, default=None)

    def is_all_that_there_is(self) -> bool:
        """Whether no row of the log is the last operation on a record."""
        ((row,),) = self._database.rows(f"SELECT count(*) {BESIDE_RECORDS} WHERE {IS_THE_LAST}")
        return row == 0

    def _others(self) -> Iterator[_Other]:
        last = BEFORE_ALL
        while True:
            page = self._database.rows(OTHERS, (last, PAGE_WAL_ROWS))
            for seq_id, topic, operation, id, rowid, number in page:
                last = integer(seq_id, "embeddings_queue.seq_id")
                collection = collection_of(topic)
                yield _Other(
                    seq_id=last,
                    collection=collection,
                    operation=operation,
                    id=id,
                    exists=rowid is not None,
                    last=_number(number),
                )
            if len(page) < PAGE_WAL_ROWS:
                return

    def _find_suspects(self) -> AbstractSet[str]:
        """Collections with a row that is not explained by what the log has after it.

        That is a record that is not there though no row deletes it, or one whose last operation is
        not in the log.
        """
        found: set[str] = set()
        absent: dict[tuple[str, object], None] = {}
        expected: dict[int, tuple[str, object]] = {}
        for row in self._others():
            if row.seq_id > self._starts.get(row.collection, -1):
                continue
            if not row.exists:
                if row.name in MAKERS:
                    absent[row.collection, row.id] = None
                elif row.name == "delete":
                    absent.pop((row.collection, row.id), None)
            elif row.last is not None and row.last > row.seq_id:
                expected[row.last] = (row.collection, row.id)
                if len(expected) >= PAGE_WAL_ROWS:
                    found |= self._not_in_log(expected)
                    expected = {}
            elif row.name in CHANGERS:
                found.add(row.collection)
        return found | self._not_in_log(expected) | {collection for collection, _ in absent}

    def _not_in_log(self, expected: Mapping[int, tuple[str, object]]) -> set[str]:
        """Collections of which the log has other operations than these, or none, at their place."""
        numbers = json.dumps([number for number in expected if number < LARGEST_SEQ_ID])
        rows = self._database.rows(ROWS_NUMBERED, (numbers,))
        there = {seq_id: (collection_of(topic), id) for seq_id, topic, id in rows}
        return {of for number, (of, id) in expected.items() if there.get(number) != (of, id)}

    def _find_given_again(self) -> Iterator[int]:
        last, count = BEFORE_ALL, PAGE_WAL_ROWS
        while count == PAGE_WAL_ROWS:
            page = self._database.rows(RECORDS, (last, PAGE_WAL_ROWS))
            count = len(page)
            records: dict[int, set[tuple[object, object]]] = {}
            for rowid, collection, id, number in page:
                last = integer(rowid, "embeddings.id")
                at = _number(number)
                if at is not None and 0 <= at < LARGEST_SEQ_ID:
                    records.setdefault(at, set()).add((collection_of(collection), id))
            rows = self._database.rows(ROWS_NUMBERED, (json.dumps(list(records)),))
            for seq_id, topic, id in rows:
                number = integer(seq_id, "embeddings_queue.seq_id")
                if records[number] != {(collection_of(topic), id)}:
                    yield number

    def _others_of(self, collection: str) -> Sequence[_Other]:
        """Those of one collection; the log is read once for all that are suspect."""
        if self._others_by_collection is None:
            found: dict[str, list[_Other]] = {suspect: [] for suspect in self._suspects or ()}
            for row in self._others():
                if row.collection in found:
                    found[row.collection].append(row)
            self._others_by_collection = found
        return self._others_by_collection[collection]

    def _examine(self, collection: str) -> UnappliedRows:
        """What is proven of one collection."""
        start, rows = self._starts[collection], self._rows_of(collection)
        ids = {row.seq_id: row.id for row in rows}
        certain, unsure, absent = _sorted_out(self._others_of(collection), ids, start)
        again = self.first_given_again()
        if again is None and start > LARGEST_SEQ_ID:
            # No log was ever as long, so this is no sign that its end was cut off. But since when
            # the watermark is so, only the last row tells that was applied.
            again = self._applied_since(collection, BEFORE_ALL)[1] + 1
        first, before = min(certain, default=NEVER), NEVER
        if again is not None:
            before = self._applied_since(collection, again)[0]
            certain |= {number for number in unsure | absent if again <= number < before}
            first = min(certain, default=NEVER)
            if again <= first < before:
                first = again
        doubtful = sorted(absent - certain)
        never = tuple(row for row in rows if row.seq_id in certain and row.fault is None)
        if not never:
            return UnappliedRows((), 0, tuple(doubtful))
        # Doubtful rows are applied again, too, where that changes nothing else.
        nearest = max((number for number in unsure if number < first), default=0)
        first = min(first, *(number for number in doubtful if number > nearest), NEVER)
        return UnappliedRows(never, first, tuple(doubtful), before)

    def _applied_since(self, collection: str, since: int) -> tuple[int, int]:
        """The first and the last row since a number that are the last operations on records."""
        ((first, last),) = self._database.rows(LAST_OF_RECORDS, (since, collection.encode()))
        if first is None:
            return NEVER, 0
        return integer(first, "embeddings_queue.seq_id"), integer(last, "embeddings_queue.seq_id")


def _sorted_out(
    others: Sequence[_Other], ids: Mapping[int, bytes], start: int
) -> tuple[set[int], set[int], set[int]]:
    """Rows that were never applied, for sure, perhaps, and perhaps as a record is not there.

    Args:
        ids: of all rows of the collection, by number.
        start: METADATA's watermark.
    """
    certain: set[int] = set()
    unsure: set[int] = set()
    absent: dict[object, list[int]] = {}
    to_be_deleted: set[object] = set()
    for row in others:
        if not row.exists:
            if row.name == "delete":
                absent.pop(row.id, None)
            elif row.seq_id <= start and (row.name in MAKERS or row.id in absent):
                absent.setdefault(row.id, []).append(row.seq_id)
            continue
        if row.seq_id > start or row.last is None:
            continue
        if row.name not in CHANGERS and not (row.name == "add" and row.id in to_be_deleted):
            continue  # Chroma ignores an add of a record that is there
        if row.name == "delete":
            to_be_deleted.add(row.id)
        if row.last < row.seq_id:
            certain.add(row.seq_id)
        elif ids.get(row.last) != row.id:
            unsure.add(row.seq_id)
    return certain, unsure, {seq_id for rows in absent.values() for seq_id in rows}


def _number(seq_id: object) -> int | None:
    """A seq_id of a record as a number; None for what is none."""
    try:
        return seq_id_number(seq_id)
    except SqliteDamaged:
        return None
