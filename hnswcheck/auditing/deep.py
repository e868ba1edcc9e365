"""Level deep: standard, and then the vectors, reachability, and hnswlib as a second reader."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from hnswcheck.auditing.segment_report import status_of
from hnswcheck.auditing.standard import standard
from hnswcheck.checks.reachability import Graph, check_reach
from hnswcheck.checks.sampling import Sampler
from hnswcheck.checks.second_reader import check_with_second_reader
from hnswcheck.checks.vectors import VectorFaults, differs, faulty_places
from hnswcheck.engines.hnswlib import NotAsked, has_hnswlib
from hnswcheck.errors import FormatError, StoreChanged
from hnswcheck.formats.arrays import Floats
from hnswcheck.formats.header import Header
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.labels import find_labels
from hnswcheck.formats.level0 import Chunk, Elements, read_vectors
from hnswcheck.formats.link_lists import LinkLists
from hnswcheck.formats.segment_files import LEVEL0
from hnswcheck.formats.strings import find
from hnswcheck.formats.text import text
from hnswcheck.replay.vectors import rows_in_index
from hnswcheck.report import Finding, Level, SegmentReport, finding
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.records import read_written_since
from hnswcheck.store.segment import Advance, SegmentFolder
from hnswcheck.store.wal import is_complete, read_wal_vectors


def bytes_to_read(folder: SegmentFolder, level: Level) -> int:
    """What a level reads of a segment, for progress."""
    match level:
        case Level.PROBE:
            return 0
        case Level.STANDARD:
            return folder.bytes_to_read
        case Level.DEEP:
            again = folder.held * folder.header.stride if folder.header else 0
            return folder.bytes_to_read + again + (again if has_hnswlib() else 0)


def deep(
    view: CollectionView,
    folder: SegmentFolder,
    database: Database,
    sampler: Sampler,
    advance: Advance,
) -> SegmentReport:
    """Judge a segment by everything that is there.

    Reads data_level0.bin once more, so that no more than the links is in memory at any time.

    Raises:
        StoreChanged, StoreUnreadable: it could not be read.
    """
    report = standard(view, folder, sampler, advance)
    header = folder.header
    if header is None or not header.count or not folder.level0_whole or not view.peek.present:
        return report
    try:
        findings = list(_check(view, folder, header, database, sampler, advance))
    except (FormatError, OSError) as error:
        raise StoreChanged(f"a file changed while it was read: {error}") from error
    found = (*report.findings, *findings)
    return replace(report, findings=found, status=status_of(view, found, report.ledger))


def _check(
    view: CollectionView,
    folder: SegmentFolder,
    header: Header,
    database: Database,
    sampler: Sampler,
    advance: Advance,
) -> Iterator[Finding]:
    norms = folder.read_norms()[0] if view.collection.space == "cosine" else None
    faults = VectorFaults(norms)
    elements, links, findings = _walk(folder, header, faults, advance)
    yield from findings
    places = list(faulty_places(faults))
    expected = _rows_in_index(view, database)
    id_map = folder.read_id_map() if places or expected else None
    for kind, faulty in places:
        yield finding(kind, len(faulty), sampler.places(_names(faulty, elements, id_map)))
    if id_map is not None and id_map.problem is None:
        yield from _check_log(folder, header, elements, id_map, expected, norms, database, sampler)
    del id_map
    if links is None:
        return
    try:
        yield from check_with_second_reader(
            folder, header, elements, links, view.collection.space, advance
        )
    except NotAsked as reason:
        yield finding("second-reader-not-asked", 1, (), "an answer of hnswlib", str(reason))


def _walk(
    folder: SegmentFolder, header: Header, faults: VectorFaults, advance: Advance
) -> tuple[Elements, LinkLists | None, list[Finding]]:
    """Look at every vector, and follow every link; None for links that cannot be followed."""
    graph = Graph(header)

    def visit(chunk: Chunk) -> None:
        faults.visit(chunk)
        graph.visit(chunk)

    elements, links = folder.read_elements(visit, advance), folder.read_links()
    assert elements is not None
    if links is None or links.bad is not None:
        return elements, None, []
    return elements, links, list(check_reach(graph, links))


def _names(faulty: list[int], elements: Elements, id_map: IdMap | None) -> Iterator[str]:
    """The ids of elements; of those that have none, the labels."""
    labels = elements.labels[faulty]
    at = np.full(len(labels), -1)
    if id_map is not None:
        at = find_labels(id_map.id_to_label.labels.astype(np.uint64), labels)
    for label, position in zip(labels.tolist(), at.tolist(), strict=True):
        if id_map is not None and position >= 0:
            yield text(id_map.id_to_label.ids[position])
        else:
            yield f"label {label}"


def _rows_in_index(view: CollectionView, database: Database) -> dict[bytes, int]:
    """For each id whose vector must be that of a row of the log, the row's seq_id."""
    rows, records = view.read_all_wal(), view.collection.metadata
    if not (view.start_known and rows and records):
        return {}
    written = read_written_since(database, records.id, rows[0].seq_id - 1)
    complete = is_complete(database) and view.first_given_again() is None
    return rows_in_index(rows, view.start, complete, written, view.writer)


def _check_log(
    folder: SegmentFolder,
    header: Header,
    elements: Elements,
    id_map: IdMap,
    expected: dict[bytes, int],
    norms: Floats | None,
    database: Database,
    sampler: Sampler,
) -> Iterator[Finding]:
    """Vectors of which the log still has the row that wrote them."""
    stored = _stored_elements(expected, elements, id_map)
    wrong: list[bytes] = []
    for page in read_wal_vectors(database, stored.keys()):
        rows = [row for row, vector in page.items() if len(vector) == 4 * header.dimension]
        at = np.array([stored[row][1] for row in rows], np.int64)
        vectors = read_vectors(folder.path / LEVEL0, header, at)
        for row, vector in zip(rows, vectors, strict=True):
            id, element = stored[row]
            norm = None if norms is None else float(norms[element])
            if differs(vector, norm, np.frombuffer(page[row], "<f4")):
                wrong.append(id)
    if wrong:
        yield finding("vector-differs-from-wal", len(wrong), sampler.bytes(wrong))


def _stored_elements(
    expected: dict[bytes, int], elements: Elements, id_map: IdMap
) -> dict[int, tuple[bytes, int]]:
    """By the seq_id of a row of the log: the id, and the live element that has its vector.

    Args:
        expected: for each id the seq_id of the row whose vector it must have.
    """
    indexed = find(expected, id_map.id_to_label.ids)
    labels = id_map.id_to_label.labels[list(indexed.values())].astype(np.uint64)
    found = zip(indexed, find_labels(elements.labels, labels).tolist(), strict=True)
    live = ((id, e) for id, e in found if e >= 0 and not elements.tombstoned[e])
    return {expected[id]: (id, element) for id, element in live}
