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
from hnswcheck.store.records import History, read_history, read_written_since
from hnswcheck.store.releases import Release
from hnswcheck.store.schema import Schema
from hnswcheck.store.segment import Peek, peek_id_map, segment_folder
from hnswcheck.store.settings import DeclaredSettings, read_declared_settings
from hnswcheck.store.unapplied import Unapplied, UnappliedRows
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
        writer: the line of Chroma that wrote the store, by whose ways its history is read.
        opener: the line that is to open it, by whose ways it is judged; else the same.
        read_all_wal: reads every WAL row of the collection, as :func:`legible` has them.
        aside: folders that were once its segment's, newest name first.
        settings: reads how the collection says that its index is built.
        history: reads what the whole store still knows of its operations, once for all views.
        written_since: reads ids of records that were last written after a seq_id, and when.
        unapplied: finds the rows of the log that METADATA skips though it never applied them.
        first_given_again: finds the least number that the store's log certainly gave twice.
        all_unapplied: finds whether no row of the store's log is the last operation on a record.
        lift: numbers of rows above this are as much higher as in the log: see
            :mod:`hnswcheck.salvaging.in_order`.
        lost_until: operations up to this one may have gone with a log that was emptied; None if it
            was not.
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
    writer: Release
    opener: Release
    unreadable: str | None
    read_all_wal: Callable[[], Sequence[WalRow]]
    aside: Sequence[Path]
    settings: Callable[[], DeclaredSettings]
    history: Callable[[], History]
    written_since: Callable[[int], Mapping[bytes, int]]
    unapplied: Callable[[], UnappliedRows]
    first_given_again: Callable[[], int | None]
    all_unapplied: Callable[[], bool]
    lift: int = 0
    lost_until: int | None = None

    def with_ids(self) -> CollectionView:
        """The same with its record ids read now.

        Raises:
            StoreChanged, SqliteDamaged: they could not be.
        """
        ids = self.record_ids()
        return replace(self, record_ids=lambda: ids)

    def logged(self, seq_id: int) -> int:
        """The number that a row has in the log."""
        return seq_id - self.lift if self.lift and seq_id > self.lift else seq_id

    @property
    def shape(self) -> tuple[int | None, str]:
        """Dimension and distance, by sqlite."""
        return self.collection.dimension, self.collection.space

    @property
    def metadata_start(self) -> int:
        """Where the replay of METADATA begins."""
        return _metadata_start(self.metadata_watermark, self.opener, self.highest)

    @property
    def start_known(self) -> bool:
        """Whether both watermarks are numbers that one can replay from."""
        mark = self.vector_watermark
        return self.records_known and (mark is None or mark.is_number(self.opener))

    @property
    def records_known(self) -> bool:
        """Whether METADATA's watermark is, which is all that the records need."""
        mark = self.metadata_watermark
        return mark is None or mark.is_number(self.opener)

    @property
    def was_flushed(self) -> bool:
        """Whether the watermark says so; 0.4 keeps it in the id map."""
        return self.vector_watermark is not None and self.vector_watermark.value > 0

    @property
    def checkpoint_behind(self) -> bool:
        """Whether sqlite takes the index for newer than it says it is."""
        checkpoint, mark = self.peek.checkpoint, self.vector_watermark
        return checkpoint is not None and mark is not None and checkpoint < mark.value

    def keeps_what_it_replays(self) -> bool:
        """Whether no row of the log is purged that a new index needs, until it is flushed.

        In 1.x the watermark of the old index lets Chroma purge rows that it has just replayed.
        """
        if self.opener.watermark_outlives_index:
            return True
        settings = self.settings()
        pending = sum(row.seq_id > self.start for row in self.wal)
        return not settings.purges or pending >= settings.sync_threshold


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
    """All that sqlite says of each collection, in an order of its own.

    The number of queries grows with the records and the WAL, not with the collections.

    Args:
        collections: those that have both segments.
        with_ids: read record ids and count the WAL, too.
    """
    marks = read_watermarks(store.database, schema.converts_watermarks)
    places = [_place(store, collection, marks, schema.opener) for collection in collections]
    waiting = {place.metadata: place for place in places}
    common = _read_common(store, places, schema, with_ids)
    if with_ids:
        for segment, ids in read_record_ids(store.database, common.records, waiting.keys()):
            yield common.view_of(waiting.pop(segment), ids)
    for place in waiting.values():
        yield common.view_of(place, lambda: Strings.of(()))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where one collection is, and where its replay begins; what its view says of it.

    Attributes:
        vector, metadata: ids of its segments.
    """

    collection: Collection
    vector: str
    metadata: str
    folder: Path | None
    peek: Peek
    unreadable: str | None
    vector_watermark: Watermark | None
    metadata_watermark: Watermark | None

    def start(self, release: Release, highest: int) -> int:
        return replay_start(self.peek, self.vector_watermark, release, highest)

    def first(self, release: Release, highest: int) -> int:
        """The seq_id after which one of its segments has rows to apply."""
        metadata = _metadata_start(self.metadata_watermark, release, highest)
        return min(self.start(release, highest), metadata)


def _metadata_start(mark: Watermark | None, release: Release, highest: int) -> int:
    return mark.start(release, highest) if mark else release.before_all


def _vector_watermark(release: Release, peek: Peek, row: Watermark | None) -> Watermark | None:
    """VECTOR's watermark from where the line reads it."""
    if release.watermark_in == "sqlite":
        return row
    return None if peek.max_seq_id is None else Watermark(peek.max_seq_id, "pickled")


def replay_start(peek: Peek, row: Watermark | None, release: Release, highest: int) -> int:
    """The seq_id after which a line replays the log into the index.

    Args:
        row: VECTOR's in ``max_seq_id``; a line that keeps its watermark there takes over what an
            older one left in the id map.
        highest: the last seq_id of the log.

    An id map with a checkpoint is of just that operation. Its writer begins there; a release that
    does not read it begins at the row, and what it then replays again changes nothing.
    """
    begun = peek.present if release.empty_id_map_starts_over else peek.exists
    mark = _vector_watermark(release, peek, row)
    if mark is None and begun and peek.max_seq_id is not None:
        mark = Watermark(peek.max_seq_id, "pickled")
    if begun and peek.checkpoint is not None:
        return peek.checkpoint
    if mark is None or not (begun or release.watermark_outlives_index):
        return release.before_all
    return mark.start(release, highest)


def _place(
    store: StoreView, collection: Collection, marks: Mapping[str, Watermark], release: Release
) -> _Place:
    assert collection.vector is not None
    assert collection.metadata is not None
    folder = segment_folder(store.root, collection)
    peek, unreadable = Peek(), None
    try:
        peek = peek_id_map(folder) if folder else peek
    except StoreUnreadable as error:
        unreadable = str(error)
    return _Place(
        collection=collection,
        vector=collection.vector.id,
        metadata=collection.metadata.id,
        folder=folder,
        peek=peek,
        unreadable=unreadable,
        vector_watermark=_vector_watermark(release, peek, marks.get(collection.vector.id)),
        metadata_watermark=marks.get(collection.metadata.id),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Common:
    """What is read once for all collections.

    Attributes:
        records: rows of ``embeddings`` by metadata segment.
        wal: the rows that are not applied yet, by collection.
        wal_totals: all rows by collection; None where they were not counted.
        aside: folders that were once a segment's, by vector segment.
    """

    database: Database
    schema: Schema
    records: Mapping[str, int]
    wal: Mapping[str, Sequence[WalRow]]
    wal_totals: Mapping[str, int] | None
    highest: int
    all_rows: AllRows
    aside: Mapping[str, Sequence[Path]]
    history: Callable[[], History]
    unapplied: Unapplied

    def view_of(self, place: _Place, ids: Callable[[], Strings]) -> CollectionView:
        """The view of one collection.

        Args:
            ids: gives its record ids.
        """
        collection, totals = place.collection, self.wal_totals
        return CollectionView(
            collection=collection,
            folder=place.folder,
            peek=place.peek,
            start=place.start(self.schema.opener, self.highest),
            vector_watermark=place.vector_watermark,
            metadata_watermark=place.metadata_watermark,
            records=self.records.get(place.metadata, 0),
            record_ids=ids,
            wal=self.wal[collection.id],
            wal_total=None if totals is None else totals.get(collection.id, 0),
            highest=self.highest,
            writer=self.schema.writer,
            opener=self.schema.opener,
            unreadable=place.unreadable,
            read_all_wal=cache(partial(_all_legible, self.all_rows, collection)),
            aside=self.aside.get(place.vector, ()),
            settings=partial(read_declared_settings, self.database, self.schema, collection),
            history=self.history,
            written_since=partial(read_written_since, self.database, place.metadata),
            unapplied=cache(partial(self.unapplied.of, collection.id)),
            first_given_again=self.unapplied.first_given_again,
            all_unapplied=self.unapplied.is_all_that_there_is,
        )


def _all_legible(all_rows: AllRows, collection: Collection) -> Sequence[WalRow]:
    return legible(all_rows.of(collection.id), collection.dimension)


def _read_common(
    store: StoreView, places: Sequence[_Place], schema: Schema, with_ids: bool
) -> _Common:
    database = store.database
    records = count_records(database)
    release, highest = schema.opener, highest_seq_id(database)
    wal = read_wal(database, {p.collection.id: p.first(release, highest) for p in places}, release)
    totals = read_wal_summary(database) if with_ids else None
    in_order = [p.collection.id for p in sorted(places, key=lambda p: p.metadata.encode())]
    all_rows = AllRows(database, release, {c: (totals or {}).get(c, 0) for c in in_order})
    by_id = {p.collection.id: p for p in places}
    starts = {c: _metadata_start(p.metadata_watermark, release, highest) for c, p in by_id.items()}
    unapplied = Unapplied(database, starts, lambda c: _all_legible(all_rows, by_id[c].collection))
    return _Common(
        database=database,
        schema=schema,
        records=records,
        wal=wal,
        wal_totals=totals,
        highest=highest,
        all_rows=all_rows,
        aside=quarantined_folders(store.root),
        history=cache(partial(read_history, database)),
        unapplied=unapplied,
    )
