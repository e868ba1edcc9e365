"""Level standard: every id, every label, every delete mark, every link. Exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Event
from typing import ParamSpec, TypeVar

import numpy as np

from hnswcheck.auditing.segment_report import (
    check_dimension,
    check_watermarks,
    ledger_of,
    segment_report,
    status_of,
)
from hnswcheck.checks.elements import Placement, check_elements, place
from hnswcheck.checks.files import check_files, check_symlinks
from hnswcheck.checks.graph import (
    LinkFaults,
    check_chunk,
    check_entry_point,
    check_link_records,
    check_links,
)
from hnswcheck.checks.id_map import check_id_map, check_shape
from hnswcheck.checks.ledger import (
    check_balance,
    check_lag,
    check_replay,
    check_rows,
    check_swallowed,
)
from hnswcheck.checks.next_release import check_next_load
from hnswcheck.checks.rolled_back import check_rolled_back
from hnswcheck.checks.sampling import SAMPLE, Sampler
from hnswcheck.errors import StoreChanged
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.level0 import Chunk, Elements
from hnswcheck.formats.link_lists import LinkLists
from hnswcheck.formats.segment_files import ID_MAP, LINKS
from hnswcheck.formats.strings import Strings, find
from hnswcheck.replay.balance import Balance, balance
from hnswcheck.replay.index import Marks, Replay, replay_index
from hnswcheck.replay.records import replay_records
from hnswcheck.replay.vectors import vectors_in
from hnswcheck.report import Finding, Recoverable, SegmentReport, finding
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.releases import Release
from hnswcheck.store.segment import Advance, SegmentFolder

P = ParamSpec("P")
T = TypeVar("T")
NO_IDS = Strings.of(())
#: Segments of fewer bytes are read faster than a thread starts.
WORTH_A_THREAD = 4 << 20
SOUND = ("empty", "consistent", "lagging")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A segment's files, read.

    Attributes:
        id_map, elements, links: None for a file that cannot be read as such.
        placement: which element each id has; None without id map or elements.
        faults: what is wrong with the links.
    """

    folder: SegmentFolder
    id_map: IdMap | None = None
    elements: Elements | None = None
    links: LinkLists | None = None
    placement: Placement | None = None
    faults: LinkFaults

    @property
    def known_id_map(self) -> IdMap | None:
        """The id map, if it is whole."""
        return self.id_map if self.id_map and self.id_map.problem is None else None


def standard(
    view: CollectionView, folder: SegmentFolder, sampler: Sampler, advance: Advance
) -> SegmentReport:
    """Judge a segment by everything but its vectors.

    Where the vectors are it only says of a sound one.

    Raises:
        StoreChanged, StoreUnreadable: it could not be read.
    """
    if folder.irregular:
        return segment_report(view, list(check_files(folder, *view.shape)))
    with _beside(folder, _records, view) as records_read:
        parts = read_parts(folder, sampler, advance)
    records = records_read()
    marks = _marks(parts, view.opener)
    replay = replay_index(view.wal, view.start, parts.id_map, marks, view.opener, view.settings)
    result = _balance(records, parts, replay) if view.start_known else None
    swallowed = view.unapplied().rows if view.records_known else ()
    ledger = ledger_of(view, folder)
    findings = [
        *check_symlinks(folder),
        *check_dimension(view, folder),
        *(
            _check_discarded(parts)
            if _discarded(view, parts, result)
            else _check_kept(view, parts, replay, result, sampler)
        ),
        *(check_balance(result, sampler) if result else ()),
        *check_swallowed(swallowed, sampler),
        *check_rolled_back(parts.known_id_map, view, sampler),
        *check_replay(replay, sampler),
        *(check_lag(view.wal, view.start) if view.start_known else ()),
        *check_rows(view.wal, view.collection.dimension, sampler),
        *check_watermarks(view),
    ]
    id_map, elements = parts.id_map, parts.elements
    whole = elements if elements is not None and folder.level0_whole else None
    ledger = replace(
        ledger,
        index_ids=len(id_map.id_to_label.ids) if id_map else 0,
        total_elements_added=id_map.total_elements_added if id_map else None,
        live=whole.live if whole else None,
        tombstones=whole.tombstones if whole else None,
        records_after_replay=len(records) if view.records_known else None,
        index_ids_after_replay=result.index_ids if result else None,
        missing=len(result.missing) if result else None,
        phantom=len(result.phantom) if result else None,
        swallowed=len(swallowed) if view.records_known else None,
    )
    sound = status_of(view, findings, ledger) in SOUND
    return segment_report(view, findings, ledger, _served(view, parts, records) if sound else None)


def _records(view: CollectionView) -> Strings:
    """The ids that sqlite has after replay."""
    records = replay_records(view.wal, view.metadata_start, view.record_ids())
    _ = records.sorted_hashes  # which takes a while, so not later
    return records


@contextmanager
def _beside(
    folder: SegmentFolder, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> Iterator[Callable[[], T]]:
    """Run a function in a thread while a folder is read, where that is worth a thread.

    Gives what waits for its result, or raises what it raised.
    """
    if folder.bytes_to_read < WORTH_A_THREAD:
        result = function(*args, **kwargs)
        yield lambda: result
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(function, *args, **kwargs).result


def read_parts(folder: SegmentFolder, sampler: Sampler, advance: Advance) -> Parts:
    """Read a segment's files once, judging the links on the way."""
    faults = LinkFaults(limit=None if sampler.everything else SAMPLE)
    header = folder.header

    def visit(chunk: Chunk) -> None:
        if header is not None and folder.level0_whole:
            check_chunk(chunk, header, faults)

    given_up = Event()

    def advance_unless_given_up(count: int) -> None:
        if given_up.is_set():
            raise StoreChanged("gave up")
        advance(count)

    if folder.irregular:
        return Parts(folder=folder, faults=faults)
    reading = _beside(folder, folder.read_elements, visit, advance_unless_given_up)
    with reading as elements_read, _on_failure(given_up.set):
        id_map = folder.read_id_map(advance)
        links = folder.read_links(advance)
        if id_map is not None:  # both take a while, so not after the elements
            _ = id_map.id_to_label.ids.sorted_hashes, id_map.label_to_id.ids.hashes
    elements = elements_read()
    if header is not None and links is not None and links.bad is None:
        check_links(links, header, faults)
    placement = place(elements, id_map) if elements and id_map else None
    return Parts(
        folder=folder,
        id_map=id_map,
        elements=elements,
        links=links,
        placement=placement,
        faults=faults,
    )


@contextmanager
def _on_failure(call: Callable[[], None]) -> Iterator[None]:
    """Call if the block fails or is interrupted."""
    try:
        yield
    except BaseException:
        call()
        raise


def _starts_over(id_map: IdMap | None, release: Release) -> bool:
    """Whether replay starts a new index: without an id map, or in some lines over an empty one."""
    if id_map is None:
        return True
    empty = id_map.problem is None and not len(id_map.id_to_label.ids)
    return empty and release.empty_id_map_starts_over


def _discarded(view: CollectionView, parts: Parts, result: Balance | None) -> bool:
    """Whether Chroma throws the index files away unread, and loses nothing by it."""
    if not parts.folder.states or not _starts_over(parts.id_map, view.opener):
        return False
    flushed = parts.id_map is None and view.was_flushed
    if flushed or result is None or result.missing:
        return False
    header = parts.folder.header  # of files that 0.x makes before the index has any elements
    return not result.phantom or (header is not None and not header.count)


def _check_discarded(parts: Parts) -> Iterator[Finding]:
    """What lies there was cut off before its id map; nothing in it can harm."""
    folder, elements, id_map = parts.folder, parts.elements, parts.id_map
    total = 0 if id_map is None else id_map.total_elements_added or 0
    newer = folder.count
    if elements is not None and folder.level0_whole:
        dead = elements.tombstoned & (elements.labels <= np.uint64(total))
        newer -= int(np.count_nonzero(dead))
    if newer:
        yield finding("flush-interrupted", newer)


def _check_kept(
    view: CollectionView, parts: Parts, replay: Replay, result: Balance | None, sampler: Sampler
) -> Iterator[Finding]:
    """Findings about files that Chroma loads."""
    yield from check_files(parts.folder, *view.shape)
    yield from _check_absence(view, parts, result)
    yield from _check_contents(view, parts, replay, sampler)


def _marks(parts: Parts, release: Release) -> Marks | None:
    """What stands in the way of replay; nothing where it starts a new index."""
    placement, elements, id_map = parts.placement, parts.elements, parts.known_id_map
    if placement is None or elements is None or id_map is None or not parts.folder.level0_whole:
        return None
    if _starts_over(id_map, release):
        return None
    last = id_map.total_elements_added or 0
    dead = elements.labels[elements.tombstoned & (elements.labels > np.uint64(last))]
    undeletable = (placement.element < 0) | placement.tombstoned
    return Marks(undeletable, placement.tombstoned, set(dead.tolist()), last)


def _balance(records: Strings, parts: Parts, replay: Replay) -> Balance | None:
    """Account 1; None where the ids of the index are unknown."""
    if parts.id_map is not None and parts.id_map.problem is not None:
        return None
    index_ids = parts.id_map.id_to_label.ids if parts.id_map else NO_IDS
    return balance(records, replay, index_ids)


def _check_absence(view: CollectionView, parts: Parts, result: Balance | None) -> Iterator[Finding]:
    """Folder or id map not there: damage only if something is missing, or is going to be."""
    folder = parts.folder
    if ID_MAP in folder.states:
        return
    if not folder.states:
        balanced = result is not None and not result.missing
        if not balanced or (view.was_flushed and not view.keeps_what_it_replays()):
            yield finding("segment-folder-missing")
    else:
        yield finding("id-map-missing")


def _check_contents(
    view: CollectionView, parts: Parts, replay: Replay, sampler: Sampler
) -> Iterator[Finding]:
    folder, header = parts.folder, parts.folder.header
    if parts.id_map is not None:
        size = folder.states[ID_MAP].size
        dimension = view.collection.dimension
        yield from check_id_map(parts.id_map, size, header, dimension, sampler)
        yield from check_shape(parts.id_map, view.opener)
    if header is None or not folder.level0_whole:
        return
    elements, placement, id_map = parts.elements, parts.placement, parts.known_id_map
    loaded = not _starts_over(id_map, view.opener)
    if loaded and elements is not None and placement is not None and id_map is not None:
        yield from check_elements(elements, placement, id_map, replay, view.opener, sampler)
    if loaded and id_map is not None:
        yield from check_next_load(header, elements)
    if parts.links is not None:
        yield from check_link_records(parts.links, header, folder.states[LINKS].size)
    yield from parts.faults.findings(sampler)
    yield from check_entry_point(header, parts.links, parts.faults)


def _served(view: CollectionView, parts: Parts, records: Strings) -> Recoverable:
    """Where Chroma takes the vectors of a sound collection from."""
    written = {row.id for row in view.wal}
    indexed = find(written, parts.id_map.id_to_label.ids) if parts.id_map else {}
    pending = len(find(vectors_in(view.wal, view.start, indexed.keys()), records))
    return Recoverable(
        from_segment=len(records) - pending, from_wal=pending, from_quarantine=0, suspect=0, lost=0
    )
