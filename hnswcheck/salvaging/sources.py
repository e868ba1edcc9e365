"""For every record the best source of its vector that exists anywhere, and how good it is.

Sources are the log, the segment's own folder, and folders that were once the segment's and were
moved aside, by hnswcheck or by others. Of all that they have, the best grade wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hnswcheck.errors import FormatError, RepairRefused, StoreChanged, StoreUnreadable
from hnswcheck.formats.arrays import Flags, Floats, Ints
from hnswcheck.formats.strings import find
from hnswcheck.replay.records import records_after_replay
from hnswcheck.salvaging.assignment import assignments_of
from hnswcheck.salvaging.damaged_segment import DamagedSegment, open_damaged_segment
from hnswcheck.salvaging.element_damage import damage_of
from hnswcheck.salvaging.evidence import Evidence
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.grade import Grade, Grades
from hnswcheck.salvaging.grading import judge_folder
from hnswcheck.salvaging.in_order import (
    as_logged,
    doubt_about_start,
    in_order,
    numbered_again,
    right_metadata_start,
)
from hnswcheck.salvaging.judged import Judged, Reasons
from hnswcheck.salvaging.log_evidence import LogEvidence, ids_before, read_log
from hnswcheck.salvaging.reason import Reason
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.manifest import from_text, manifests_of
from hnswcheck.store.records import Records, read_records
from hnswcheck.store.segment import open_segment
from hnswcheck.store.wal import ID_FAULT, VECTOR_OF, WalRow, read_wal_vectors

#: Sources by number: none, the log, then folders.
NOWHERE, LOG, FIRST_FOLDER = -1, 0, 1

CHUNK = 1 << 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Salvaged:
    """Where the vector of each record is.

    Attributes:
        records: the records after replay.
        grades: uint8 (n,): of the best source, a :class:`Grade`.
        reasons: uint8 (n,): why, each a :class:`Reason`.
        sources: int64 (n,): -1 nowhere, 0 the log, else 1 + the number of the folder.
        at: int64 (n,): the seq_id in the log, or the element in the folder.
        folders: the segment's own first.
        assignments: what is known of each; None for one whose elements nobody can name.
        unread: folders that the operating system did not let us read.
        settled: bool (n,): sqlite has the record, and METADATA nothing more to apply to it.
        pending: rows of the log that METADATA has yet to apply.
        made: so many records, the last ones, are in the log only: METADATA has yet to make them.
        skipped: rows of the log that VECTOR has yet to apply, and Chroma cannot read.
        metadata_start: what METADATA's watermark must be; None if it is that.
        view: the collection as it was asked about, with the rows of its log in order.
    """

    records: Records
    grades: Grades
    reasons: Reasons
    sources: Ints
    at: Ints
    folders: tuple[DamagedSegment, ...]
    assignments: tuple[FolderAssignment | None, ...]
    unread: tuple[Path, ...]
    settled: Flags
    pending: Sequence[WalRow]
    made: int
    skipped: int
    metadata_start: int | None
    view: CollectionView

    def count(self, grade: Grade) -> int:
        """How many records have no better vector than one of this grade."""
        return int(np.count_nonzero(self.grades == grade))

    def reasons_by_grade(self) -> dict[Grade, dict[Reason, int]]:
        """How many records have a best vector of each grade, the best first, for each reason."""
        pairs = Counter(zip(self.grades.tolist(), self.reasons.tolist(), strict=True))
        found: dict[Grade, dict[Reason, int]] = {}
        for (grade, reason), count in sorted(pairs.items(), reverse=True):
            found.setdefault(Grade(grade), {})[Reason(reason)] = count
        return found

    def source_name(self, index: int) -> str:
        """Where the vector of a record comes from."""
        source = int(self.sources[index])
        if source == NOWHERE:
            return "nowhere"
        return "wal" if source == LOG else self.folders[source - FIRST_FOLDER].path.name

    def read(self, chosen: Ints, database: Database, dimension: int) -> Iterator[Floats]:
        """float32 chunks (k, dimension): the vectors of some records, in their order.

        Args:
            chosen: int64 (m,): records that have a source.
        """
        for begin in range(0, len(chosen), CHUNK):
            part = chosen[begin : begin + CHUNK]
            vectors = np.empty((len(part), dimension), np.float32)
            logged = np.flatnonzero(self.sources[part] == LOG)
            rows = {int(self.at[part[i]]): i for i in logged.tolist()}
            for page in read_wal_vectors(database, rows.keys(), self.view.lift):
                for seq_id, vector in page.items():
                    vectors[rows[seq_id]] = np.frombuffer(vector, "<f4")
            for number, folder in enumerate(self.folders, FIRST_FOLDER):
                within = np.flatnonzero(self.sources[part] == number)
                if len(within):
                    vectors[within] = folder.vectors(self.at[part[within]])
            yield vectors


def find_sources(database: Database, view: CollectionView) -> Salvaged:
    """Find the best source for each record of a collection.

    The log is asked first, then the segment's own folder, then those that were moved aside, the
    newest first. Of two sources the better grade wins, and of equal grades the one asked first.
    Once everything is proven, nobody else is asked.

    Raises:
        RepairRefused: the log cannot be read, so that nobody knows what the records are.
        StoreChanged, StoreUnreadable, SqliteDamaged: something could not be read.
    """
    asked = _question_of(database, view)
    view = asked.view
    best = _Best.of_log(asked.log)
    folders: list[DamagedSegment] = []
    assignments: list[FolderAssignment | None] = []
    unread: list[Path] = []
    for path in filter(None, (view.folder, *view.aside)):
        if folders and best.is_all_proven():
            break
        try:
            found = _ask_folder(path, asked)
        except StoreUnreadable:
            unread.append(path)
            continue
        if found is None:
            continue
        folder, ways = found
        for assignment in ways:
            grades = _graded(assignment, asked)
            best.take(grades, len(folders) + FIRST_FOLDER, assignment.element)
        folders.append(folder)
        assignments.append(_together(ways))
    records = replace(asked.records, seq_ids=as_logged(asked.records.seq_ids, view.lift))
    return Salvaged(
        records=records,
        grades=best.judged.grades,
        reasons=best.judged.reasons,
        sources=best.sources,
        at=best.at,
        folders=tuple(folders),
        assignments=tuple(assignments),
        unread=tuple(unread),
        settled=asked.settled,
        pending=[replace(row, seq_id=view.logged(row.seq_id)) for row in asked.pending],
        made=asked.made,
        skipped=sum(row.fault is not None and row.seq_id > view.start for row in asked.rows),
        metadata_start=asked.metadata_start,
        view=view,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """What is asked of every source: where are the vectors of these records?

    Attributes:
        rows: all that the log has of the collection, in order.
        records: the n records after replay.
        log: what the log says of them.
        accepted: uint8 (n,): no folder's vector is better than this, as a repair accepted it.
        numbered_again: the log gave its numbers again, so that they do not tell what was earlier.
        pending, settled, made, metadata_start: as :class:`Salvaged` has them.
    """

    database: Database
    view: CollectionView
    rows: Sequence[WalRow]
    records: Records
    log: LogEvidence
    accepted: Grades
    numbered_again: bool
    pending: Sequence[WalRow]
    settled: Flags
    made: int
    metadata_start: int | None


@dataclass(slots=True)
class _Best:
    """The best source of each record so far.

    Attributes:
        judged: its grade, with the reason.
        sources: int64 (n,): its number, as :class:`Salvaged` has it.
        at: int64 (n,): the seq_id in the log, or the element in the folder.
    """

    judged: Judged
    sources: Ints
    at: Ints

    @classmethod
    def of_log(cls, log: LogEvidence) -> _Best:
        """What the log alone gives."""
        sources = np.where(log.grades > 0, LOG, NOWHERE).astype(np.int64)
        return cls(Judged(log.grades, log.reasons).copy(), sources, log.seq_ids.copy())

    def is_all_proven(self) -> bool:
        return bool((self.judged.grades == Grade.PROVEN).all())

    def take(self, found: Judged, source: int, at: Ints) -> None:
        """Take over what a source has with a better grade.

        Args:
            at: int64 (n,): where the source has each record.
        """
        better = self.judged.improve(found)
        self.sources[better] = source
        self.at[better] = at[better]


def _question_of(database: Database, view: CollectionView) -> _Question:
    """The records of a collection once the log is replayed, and what the log says of them.

    Raises:
        RepairRefused: the log cannot be read, so that nobody knows what the records are.
    """
    collection = view.collection
    assert collection.metadata
    stored = read_records(database, collection.metadata.id)
    righted = right_metadata_start(view, stored)
    undecidable = doubt_about_start(view, righted)
    view, stored = in_order(database, view, stored)
    rows, history = view.read_all_wal(), view.history()
    start = view.metadata_start if righted is None or view.lift else righted
    if problem := undecidable or _unfathomable(view, rows, start):
        raise RepairRefused(f"collection {collection.name!r}: {problem}")
    pending = [row for row in rows if row.seq_id > start]
    records = records_after_replay(stored, pending)
    known = ids_before(rows, start, stored)
    settled = np.ones(len(records.ids), bool)
    settled[list(find({row.id for row in pending}, records.ids).values())] = False
    again = numbered_again(stored, rows, view.highest)
    accounted = 0 if again else history.accounted
    log = read_log(records, rows, accounted, history.complete and not again, known)
    perhaps = np.isin(log.made, view.unapplied().doubtful)
    Judged(log.grades, log.reasons).give(perhaps & (log.grades > 0), Reason.PERHAPS_DELETED)
    return _Question(
        database=database,
        view=view,
        rows=rows,
        records=records,
        log=log,
        accepted=_accepted(view, records),
        numbered_again=again,
        pending=pending,
        settled=settled,
        made=int(np.count_nonzero(records.rowids > int(stored.rowids.max(initial=0)))),
        metadata_start=righted,
    )


def _ask_folder(
    path: Path, asked: _Question
) -> tuple[DamagedSegment, list[FolderAssignment]] | None:
    """What is left of a folder, and each way to say whose its elements are; None if nothing is.

    Raises:
        StoreUnreadable: the operating system will not let us.
        StoreChanged: a file changed meanwhile.
    """
    view = asked.view
    try:
        opened = open_damaged_segment(path, view.collection, view.settings)
        if opened is None:
            return None
        folder, id_map = opened
        evidence = Evidence(
            folder=folder,
            damage=damage_of(folder),
            id_map=id_map,
            records=asked.records,
            log=asked.log,
            view=view,
            database=asked.database,
        )
        return folder, list(assignments_of(evidence))
    except (FormatError, OSError) as error:
        raise StoreChanged(f"a file changed while it was read: {error}") from error


def _graded(assignment: FolderAssignment, asked: _Question) -> Judged:
    """The grades of a folder's vectors, none better than the history of the store allows."""
    found = judge_folder(assignment, asked.records, asked.log)
    found.cap(asked.accepted, Reason.ACCEPTED_BEFORE)
    if asked.numbered_again:
        found.cap(Grade.UNCONFIRMED, Reason.NUMBERED_AGAIN)
    return found


def _accepted(view: CollectionView, records: Records) -> Grades:
    """uint8 (n,): what a folder has is no better than what an earlier repair accepted."""
    best: Grades = np.full(len(records.ids), Grade.PROVEN, np.uint8)
    for manifest in manifests_of(view.aside):
        for name, ids in manifest.accepted.items():
            grade = Grade.__members__.get(name.upper(), Grade.SUSPECT)
            at = list(find(map(from_text, ids), records.ids).values())
            best[at] = np.minimum(best[at], np.uint8(grade))
    return best


def _unfathomable(view: CollectionView, rows: Sequence[WalRow], start: int) -> str:
    """Why nobody can tell what the records and their vectors are; empty if that is not so.

    Args:
        start: METADATA's watermark.
    """
    dimension = view.collection.dimension
    if dimension is None:
        return "sqlite has no dimension for the collection"
    faults = {row.seq_id: row.fault for row in rows if row.fault}
    if any(seq_id > start for seq_id in faults):
        return "the WAL has rows that Chroma cannot read, and METADATA has yet to apply them"
    if ID_FAULT in faults.values():
        return "the WAL has rows whose record id cannot be read"
    of_other_size = VECTOR_OF.partition("{")[0]
    sizes = {fault.split(",")[0] for fault in faults.values() if fault.startswith(of_other_size)}
    header = open_segment(view.folder).header if view.folder else None
    if header is None:
        differs = bool(sizes) and not any(row.vector_bytes for row in rows)
    else:
        differs = header.dimension != dimension and VECTOR_OF.format(4 * header.dimension) in sizes
    if differs:
        return (
            f"sqlite says that the vectors have {dimension} dimensions, but the WAL has vectors"
            " of other dimensions"
        )
    return ""


def _together(assignments: Sequence[FolderAssignment]) -> FolderAssignment | None:
    """What is known of one folder, of each record by the first that names it."""
    if not assignments:
        return None
    first, *others = assignments
    for other in others:
        new = (first.element < 0) & (other.element >= 0)
        first = replace(
            first,
            element=np.where(new, other.element, first.element),
            tombstoned=np.where(new, other.tombstoned, first.tombstoned),
            doubtful=np.where(new, other.doubtful, first.doubtful),
            damaged=np.where(new, other.damaged, first.damaged),
            mixed=first.mixed or other.mixed,
            as_of=first.as_of if first.as_of == other.as_of else None,
        )
    return first
