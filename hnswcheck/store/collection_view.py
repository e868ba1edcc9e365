"""One collection: all that sqlite says of it, read at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from hnswcheck.errors import StoreUnreadable
from hnswcheck.formats.strings import Strings
from hnswcheck.store.catalog import Collection
from hnswcheck.store.database import Database
from hnswcheck.store.names import quarantined_folders
from hnswcheck.store.record_ids import count_records, read_record_ids
from hnswcheck.store.records import History, read_history
from hnswcheck.store.releases import Release
from hnswcheck.store.schema import Schema
from hnswcheck.store.segment import Peek, peek_id_map, segment_folder
from hnswcheck.store.settings import DeclaredSettings, read_declared_settings
from hnswcheck.store.view import StoreView
from hnswcheck.store.wal import WalRow, highest_seq_id, legible, read_wal, read_wal_summary
from hnswcheck.store.watermarks import Watermark, read_watermarks

#: Below every seq_id.
BEFORE_ALL = -1

#: WAL rows that are kept for collections that have not asked yet.
ROWS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionView:
    """A collection with all that sqlite says of it.

    Attributes:
        folder: of its vector segment; None where its id is no safe name.
        peek: the head of its id map.
        unreadable: why that could not be read, if it could not.
        start: where replay begins.
        records: rows of ``embeddings``.
        record_ids: gives their ids; none at level probe. Of many, it reads them each time.
        wal: rows past ``start`` or past METADATA's watermark, in order.
        wal_total: all rows that the WAL has of the collection; None at level probe.
        highest: the last seq_id of the store's WAL.
        release: the line of Chroma that the store is of.
        read_all_wal: reads every WAL row of the collection, as :func:`legible` has them.
        aside: folders that were once its segment's, newest name first.
        settings: reads how the collection says that its index is built.
        history: reads what the whole store still knows of its operations, once for all views.
    """

    collection: Collection
    folder: Path | None
    peek: Peek
    start: int
    vector_watermark: Watermark | None
    metadata_watermark: Watermark | None
    records: int
    record_ids: Callable[[], Strings]
    wal: Sequence[WalRow]
    wal_total: int | None
    highest: int
    release: Release
    unreadable: str | None
    read_all_wal: Callable[[], Sequence[WalRow]]
    aside: Sequence[Path]
    settings: Callable[[], DeclaredSettings]
    history: Callable[[], History]

    def with_ids(self) -> CollectionView:
        """The same with its record ids read now.

        Raises:
            StoreChanged, SqliteDamaged: they could not be.
        """
        ids = self.record_ids()
        return replace(self, record_ids=lambda: ids)

    @property
    def shape(self) -> tuple[int | None, str]:
        """Dimension and distance, by sqlite."""
        return self.collection.dimension, self.collection.space

    @property
    def metadata_start(self) -> int:
        """Where the replay of METADATA begins."""
        return self.metadata_watermark.value if self.metadata_watermark else 0

    @property
    def start_known(self) -> bool:
        """Whether both watermarks are numbers that one can replay from."""
        mark = self.vector_watermark
        return self.records_known and (mark is None or mark.is_number(self.release))

    @property
    def records_known(self) -> bool:
        """Whether METADATA's watermark is, which is all that the records need."""
        mark = self.metadata_watermark
        return mark is None or mark.is_number(self.release)

    @property
    def was_flushed(self) -> bool:
        """Whether sqlite says so; 0.4 keeps no record of it there."""
        return self.vector_watermark is not None and self.vector_watermark.value > 0


class AllRows:
    """Every WAL row of the collections that ask, read for several at a time.

    Where many are damaged, one reading of the table serves as many as fit into memory.
    """

    def __init__(self, database: Database, release: Release, totals: Mapping[str, int]) -> None:
        """Read nothing yet.

        Args:
            totals: how many rows each collection has, in the order in which they will ask.
        """
        self._database = database
        self._release = release
        self._totals = dict(totals)
        self._read: dict[str, list[WalRow]] = {}

    def of(self, collection: str) -> Sequence[WalRow]:
        """The rows of one collection; those of the ones before it need not be kept."""
        if collection not in self._read:
            waiting = iter(self._totals)
            starts = {next(c for c in waiting if c == collection): BEFORE_ALL}
            size = self._totals[collection]
            for following in waiting:
                size += self._totals[following]
                if size > ROWS_AT_ONCE:
                    break
                starts[following] = BEFORE_ALL
            self._read = read_wal(self._database, starts, self._release)
        return self._read[collection]


def read_collection_views(
    store: StoreView, collections: Sequence[Collection], schema: Schema, with_ids: bool
) -> Iterator[CollectionView]:
    """All that sqlite says of each collection, in the order of their metadata segments.

    The number of queries grows with the records and the WAL, not with the collections.

    Args:
        collections: those that have both segments.
        with_ids: read record ids and count the WAL, too.
    """
    database = store.database
    marks = read_watermarks(database)
    counts = count_records(database)
    heads: dict[str, tuple[Path | None, Peek, int]] = {}
    firsts: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    by_segment: dict[str, Collection] = {}
    for c in collections:
        assert c.vector is not None
        assert c.metadata is not None
        folder = segment_folder(store.root, c)
        peek = Peek()
        try:
            peek = peek_id_map(folder) if folder else peek
        except StoreUnreadable as error:
            unreadable[c.id] = str(error)
        start = replay_start(peek, marks.get(c.vector.id))
        heads[c.id] = folder, peek, start
        seen = marks.get(c.metadata.id)
        firsts[c.id] = min(start, seen.value if seen else 0)
        by_segment[c.metadata.id] = c
    wal = read_wal(database, firsts, schema.release)
    highest = highest_seq_id(database)
    totals = read_wal_summary(database) if with_ids else None
    in_order = [by_segment[segment].id for segment in sorted(by_segment, key=str.encode)]
    all_rows = AllRows(database, schema.release, {c: (totals or {}).get(c, 0) for c in in_order})
    aside = quarantined_folders(store.root)
    history = cache(partial(read_history, database))

    def view_of(segment: str, ids: Callable[[], Strings]) -> CollectionView:
        c = by_segment.pop(segment)
        assert c.vector
        folder, peek, start = heads[c.id]
        return CollectionView(
            collection=c,
            folder=folder,
            peek=peek,
            start=start,
            vector_watermark=marks.get(c.vector.id),
            metadata_watermark=marks.get(segment),
            records=counts.get(segment, 0),
            record_ids=ids,
            wal=wal[c.id],
            wal_total=None if totals is None else totals.get(c.id, 0),
            highest=highest,
            release=schema.release,
            unreadable=unreadable.get(c.id),
            read_all_wal=cache(lambda: legible(all_rows.of(c.id), c.dimension)),
            aside=aside.get(c.vector.id, ()),
            settings=partial(read_declared_settings, database, schema, c),
            history=history,
        )

    if with_ids:
        for segment, ids in read_record_ids(database, counts, by_segment.keys()):
            yield view_of(segment, ids)
    for segment in list(by_segment):
        yield view_of(segment, lambda: Strings.of(()))


def replay_start(peek: Peek, mark: Watermark | None) -> int:
    """The seq_id after which Chroma replays the WAL into the index.

    Without an id map, or with an empty one, it starts over; 0.4 keeps its watermark in the id map.
    """
    if not peek.present:
        return 0
    return mark.value if mark else peek.max_seq_id or 0
