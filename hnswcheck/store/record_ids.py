"""Table ``embeddings``: how many records there are, and their ids as columns, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from functools import partial

import numpy as np

from hnswcheck.errors import RecordsMoved, SqliteDamaged
from hnswcheck.formats.strings import Strings
from hnswcheck.formats.text import text
from hnswcheck.store.catalog import PAGE_RECORDS, Collection
from hnswcheck.store.database import Database, Row, TooLarge
from hnswcheck.store.schema import integer


def count_records(database: Database) -> dict[str, int]:
    """COUNT(*) of ``embeddings`` per metadata segment.

    Most stores have one segment with records, and sqlite counts all rows faster than groups.
    """
    (first,), (last,) = (
        database.rows(f"SELECT {end}(segment_id) FROM embeddings")[0] for end in ("min", "max")
    )
    if first is not None and first == last:
        ((count,),) = database.rows("SELECT count(*) FROM embeddings")
        return {text(first): integer(count, "count")}
    rows = database.rows("SELECT segment_id, count(*) FROM embeddings GROUP BY segment_id")
    return {text(segment): integer(count, "count") for segment, count in rows}


def others_have(
    database: Database, collection: Collection, ids: Sequence[bytes], count: int
) -> bool:
    """Whether another collection has all these ids, and as many in an index of this dimension.

    That is more than the records that it last wrote before its flush, and fewer than all.
    """
    others = database.rows(
        "SELECT m.id, v.id FROM collections c"
        " JOIN segments m ON m.collection = c.id AND m.scope = 'METADATA'"
        " JOIN segments v ON v.collection = c.id AND v.scope = 'VECTOR'"
        " WHERE c.dimension = ? AND c.id != CAST(? AS TEXT)",
        (collection.dimension, collection.id.encode()),
    )
    marks = ", ".join(["CAST(? AS TEXT)"] * len(ids))
    for records, vectors in others:
        ((found, every, flushed),) = database.rows(
            f"SELECT count(CASE WHEN embedding_id IN ({marks}) THEN 1 END), count(*),"
            " count(CASE WHEN seq_id <= max_seq_id THEN 1 END) FROM"
            " (SELECT e.embedding_id, e.seq_id, m.seq_id AS max_seq_id FROM embeddings e"
            " LEFT JOIN max_seq_id m ON m.segment_id = CAST(? AS TEXT)"
            " WHERE e.segment_id = CAST(? AS TEXT))",
            (*ids, vectors, records),
        )
        sizes = integer(flushed, "count"), integer(every, "count")
        if found == len(ids) and sizes[0] <= count <= sizes[1]:
            return True
    return False


IDS_QUERY = """
SELECT count(*), group_concat(embedding_id, char(0)) {more}
FROM (SELECT {columns} FROM embeddings WHERE {where} ORDER BY segment_id, embedding_id LIMIT ?)
"""
ID_LENGTHS = ", group_concat(length(CAST(embedding_id AS BLOB)))"
SEVERAL_SEGMENTS = "segment_id BETWEEN CAST(? AS TEXT) AND CAST(? AS TEXT)"
WITHIN_SEGMENT = "segment_id = CAST(? AS TEXT) AND embedding_id {after} CAST(? AS TEXT)"


def read_record_ids(
    database: Database, counts: Mapping[str, int], wanted: AbstractSet[str]
) -> Iterator[tuple[str, Callable[[], Strings]]]:
    """(metadata segment id, what gives its record ids) for each wanted segment that has records.

    Ids come a page of records at a time as one text and its lengths, so there is neither a query
    per collection nor a Python object per record. What fills more than a page is read when asked
    for. ``counts`` is what :func:`count_records` said.

    Raises, and what it gives raises:
        RecordsMoved: the table no longer holds as many.
        SqliteDamaged: the index of the table is out of order.
    """
    together: list[str] = []
    size = 0
    for segment in sorted(counts, key=str.encode):
        if size + counts[segment] > PAGE_RECORDS:
            yield from _ids_of_small(database, counts, together, wanted)
            together, size = [], 0
        if counts[segment] <= PAGE_RECORDS:
            together.append(segment)
            size += counts[segment]
        elif segment in wanted:
            yield segment, partial(_ids_of_large, database, segment, counts[segment])
    yield from _ids_of_small(database, counts, together, wanted)


def _ids_of_small(
    database: Database, counts: Mapping[str, int], segments: list[str], wanted: AbstractSet[str]
) -> Iterator[tuple[str, Callable[[], Strings]]]:
    if wanted.isdisjoint(segments):
        return
    ends = (segments[0].encode(), segments[-1].encode())
    try:
        ids, _ = _ids_page(database, SEVERAL_SEGMENTS, ends, PAGE_RECORDS + 1)
    except TooLarge:
        for segment in wanted & set(segments):
            yield segment, partial(_ids_of_large, database, segment, counts[segment])
        return
    if len(ids) != sum(counts[segment] for segment in segments):
        raise RecordsMoved("the number of records changed while they were read")
    first = 0
    for segment in segments:
        after = first + counts[segment]
        if segment in wanted:
            yield segment, partial(ids.take, np.arange(first, after))
        first = after


def _ids_of_large(database: Database, segment: str, count: int) -> Strings:
    pages = [ids for ids, _ in read_id_pages(database, segment)]
    if sum(map(len, pages)) != count:
        raise RecordsMoved("the number of records changed while they were read")
    return Strings.concatenated(pages)


def read_id_pages(
    database: Database, segment: str, lists: Sequence[str] = ()
) -> Iterator[tuple[Strings, Row]]:
    """Record ids of a metadata segment in byte order, a page at a time, with what else is asked.

    Args:
        lists: expressions over columns; of each comes a text of all its values, with commas.

    Raises:
        RecordsMoved: the table changed meanwhile.
        SqliteDamaged: the index of the table is out of order.
    """
    key, after, size = b"", ">=", PAGE_RECORDS
    while True:
        where = WITHIN_SEGMENT.format(after=after)
        try:
            page, others = _ids_page(database, where, (segment.encode(), key), size, lists)
        except TooLarge:
            if size == 1:
                raise
            size = max(1, size // 16)
            continue
        yield page, others
        if len(page) < size:
            break
        last = page[len(page) - 1]
        if last <= key:
            raise SqliteDamaged("the index of table embeddings is out of order")
        key, after = last, ">"


def _ids_page(
    database: Database,
    where: str,
    key: tuple[bytes, bytes],
    limit: int,
    lists: Sequence[str] = (),
) -> tuple[Strings, Row]:
    named = [f"{expression} AS c{i}" for i, expression in enumerate(lists)]
    columns = ", ".join(("embedding_id", *named))

    def ask(more: str) -> Row:
        query = IDS_QUERY.format(where=where, columns=columns, more=more)
        return database.rows(query, (*key, limit))[0]

    count, joined, *others = ask("".join(f", group_concat(c{i})" for i in range(len(lists))))
    if not count or not isinstance(joined, bytes):
        return Strings.of(()), tuple(others)
    buffer = np.frombuffer(joined, np.uint8)
    ends = np.append(np.flatnonzero(buffer == 0), len(buffer))
    if len(ends) != count:  # an id holds the separator
        sizes = ask(ID_LENGTHS)[2]
        listed = sizes.decode() if isinstance(sizes, bytes) else ""
        ends = np.cumsum(np.fromstring(listed, np.int64, sep=",") + 1) - 1
    if len(ends) != count or int(ends[-1]) != len(buffer):
        raise RecordsMoved("the records changed while they were read")
    starts = np.concatenate(([0], ends[:-1] + 1))
    return Strings(buffer, starts, ends - starts), tuple(others)
