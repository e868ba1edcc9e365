"""For every record the best source of its vector that exists anywhere, and how good it is.

Reads only. Sources are the log, the segment's own folder, and folders that were once the segment's
and were moved aside, by us or by others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnswcheck.checks.elements import place
from hnswcheck.checks.ledger import check_rows, check_watermark
from hnswcheck.checks.order import Order, possible_orders, proven_order
from hnswcheck.checks.proof import (
    FolderProof,
    Grade,
    Grades,
    judge_folder,
    read_log,
)
from hnswcheck.checks.remains import Folder, better_half, faulty_vectors, open_remains
from hnswcheck.checks.sampling import Sampler
from hnswcheck.checks.vectors import Floats, differs, rows_in_index
from hnswcheck.disk.catalog import watermark
from hnswcheck.disk.database import Database
from hnswcheck.disk.idmap import IdMap
from hnswcheck.disk.labels import find_labels
from hnswcheck.disk.manifest import Manifest, read_manifest
from hnswcheck.disk.names import MANIFEST, OURS
from hnswcheck.disk.records import Records, accounted, read_records
from hnswcheck.disk.settings import DeclaredSettings
from hnswcheck.disk.strings import Flags, Ints, Strings, find, positions
from hnswcheck.disk.wal import WalRow, is_complete, read_wal_vectors
from hnswcheck.errors import HnswcheckError, RepairRefused
from hnswcheck.target import Target

#: Sources by number: none, the log, then folders.
NOWHERE, LOG, FIRST_FOLDER = -1, 0, 1
CHUNK = 1 << 12


@dataclass(frozen=True, slots=True)
class Salvage:
    """Where the vector of each record is.

    Attributes:
        records: the records after replay.
        grades: uint8 (n,): of the best source, a :class:`Grade`.
        sources: int8 (n,): -1 nowhere, 0 the log, else 1 + the number of the folder.
        at: int64 (n,): the seq_id in the log, or the element in the folder.
        folders: the segment's own first.
    """

    records: Records
    grades: Grades
    sources: np.ndarray[tuple[int], np.dtype[np.int8]]
    at: Ints
    folders: tuple[Folder, ...]

    def count(self, grade: Grade) -> int:
        """How many records have no better vector than one of this grade."""
        return int(np.count_nonzero(self.grades == grade))

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
            for page in read_wal_vectors(database, rows.keys()):
                for seq_id, vector in page.items():
                    vectors[rows[seq_id]] = np.frombuffer(vector, "<f4")
            for number, folder in enumerate(self.folders, FIRST_FOLDER):
                within = np.flatnonzero(self.sources[part] == number)
                if len(within):
                    vectors[within] = folder.vectors(self.at[part[within]])
            yield vectors


def salvage(
    database: Database, target: Target, settings: DeclaredSettings, balanced: bool
) -> Salvage:
    """Find the best source for each record of a collection.

    Args:
        settings: for an index whose header is gone.
        balanced: an audit found that account 1 balances with the segment's own folder.

    Raises:
        RepairRefused: the log or the watermark of METADATA cannot be read, so that nobody knows
            what the records are.
        StoreChanged, StoreUnreadable, SqliteDamaged: something could not be read.
    """
    c = target.collection
    assert c.metadata
    rows = target.read_all_wal()
    if any(check_watermark(target.metadata_watermark, target.integers, target.highest, "METADATA")):
        raise RepairRefused(f"collection {c.name!r}: METADATA's watermark is not what Chroma wrote")
    if c.dimension is None or any(check_rows(rows, c.dimension, Sampler())):
        raise RepairRefused(f"collection {c.name!r}: the WAL has rows that Chroma cannot read")
    complete = is_complete(database)
    records = replayed(read_records(database, c.metadata.id), target.wal, target.metadata_start)
    log = read_log(records, rows, accounted(database), complete)
    grades, at = log.grades.copy(), log.seq_ids.copy()
    sources = np.where(grades > 0, LOG, NOWHERE).astype(np.int8)
    folders: list[Folder] = []
    for path in (target.folder, *target.aside):
        opened = open_remains(path, c, settings) if path else None
        if opened is None:
            continue
        folder, id_map = opened
        number = len(folders) + FIRST_FOLDER
        folders.append(folder)
        own = path == target.folder
        order, sure = None, False
        if own and (id_map is None or id_map.problem is not None):
            order, sure = _by_order(folder, records, target, database, complete)
        if order is not None and (sure or id_map is None or not len(id_map.id_to_label.ids)):
            proof = _prove_by_order(folder, order, sure)
        elif id_map is not None:
            proof = _prove(
                folder, better_half(id_map), records, target, database, own and balanced, complete
            )
        else:
            continue
        found = judge_folder(proof, records, log)
        better = found > grades
        grades[better], sources[better] = found[better], number
        at[better] = proof.element[better]
    return Salvage(records, grades, sources, at, tuple(folders))


def replayed(records: Records, rows: Sequence[WalRow], watermark: int) -> Records:
    """The records once METADATA has applied the rows past its watermark."""
    pending = [row for row in rows if row.seq_id > watermark]
    if not pending:
        return records
    known = find((row.id for row in pending), records.ids)
    seq_ids = records.seq_ids.copy()
    gone: set[int] = set()
    made: dict[bytes, int] = {}
    for row in pending:
        place = known.get(row.id)
        exists = row.id in made or (place is not None and place not in gone)
        match row.operation:
            case "delete" if exists:
                if made.pop(row.id, None) is None and place is not None:
                    gone.add(place)
            case "add" | "upsert" if not exists:
                made[row.id] = row.seq_id
            case "update" | "upsert" if exists:
                if row.id in made:
                    made[row.id] = row.seq_id
                elif place is not None:
                    seq_ids[place] = row.seq_id
            case _:
                pass
    stay = np.setdiff1d(np.arange(len(records.ids)), np.array(sorted(gone), np.int64))
    last = int(records.rowids.max(initial=0))
    return Records(
        Strings.concatenated([records.ids.take(stay), Strings.of(made)]),
        np.concatenate([records.rowids[stay], last + 1 + np.arange(len(made))]),
        np.concatenate([seq_ids[stay], np.array(list(made.values()), np.int64)]),
    )


def _by_order(
    folder: Folder, records: Records, target: Target, database: Database, complete: bool
) -> tuple[Order | None, bool]:
    """The labels of the records by their order, if 1.x wrote them; and whether that is proven."""
    mark = target.vector_watermark
    unique = len(np.unique(folder.elements.labels)) == len(folder.elements.labels)
    if not (target.integers and unique and (mark is None or mark.is_number(True))):
        return None, False
    flushed = mark.value if mark else 0

    def agrees(vectors: dict[int, int]) -> bool:
        labels = np.array(list(vectors), np.uint64)
        at = find_labels(folder.elements.labels, labels).tolist()
        return _holds(folder, dict(zip(vectors.values(), at, strict=True)), database)

    rows = target.read_all_wal()
    known = rows_in_index(rows, flushed, complete)
    live = np.sort(folder.elements.labels[~folder.elements.tombstoned])
    orders = possible_orders(records, rows, flushed, known, live)
    return proven_order(orders, flushed, agrees)


def _prove(
    folder: Folder,
    id_map: IdMap,
    records: Records,
    target: Target,
    database: Database,
    balanced: bool,
    complete: bool,
) -> FolderProof:
    placement = place(folder.elements, id_map)
    pairs = id_map.id_to_label
    at = positions(records.ids, pairs.ids)
    mapped = at >= 0
    element, labels = at.copy(), at.copy()
    element[mapped] = placement.element[at[mapped]]
    labels[mapped] = pairs.labels[at[mapped]]
    there = element >= 0
    ordered = id_map.shape == "dict" and not balanced  # else labels of 0.x may be among them
    mixed = _is_mixed(folder, id_map, placement.element, labels[there], ordered)
    moment, covered = None, False
    total = np.uint64(id_map.total_elements_added or 0)
    stray = placement.unmapped & (folder.elements.labels <= total)
    if id_map.problem is None and not (mixed or stray.any() or (placement.element < 0).any()):
        moment, covered = _moment(folder, target, balanced)
    if moment is not None and not _agrees_with_log(
        folder, element, records, target, database, moment, complete
    ):
        moment = None
    return FolderProof(
        element,
        _flagged(folder.elements.tombstoned, element),
        _flagged(faulty_vectors(folder), element),
        _scaleless(folder, element),
        mapped,
        id_map.problem is None,
        _has_strangers(pairs.ids, records, target.read_all_wal()),
        mixed,
        moment,
        covered,
    )


def _prove_by_order(folder: Folder, order: Order, sure: bool) -> FolderProof:
    element = np.full(len(order.labels), -1, np.int64)
    named = order.labels > 0
    element[named] = find_labels(folder.elements.labels, order.labels[named])
    return FolderProof(
        element,
        _flagged(folder.elements.tombstoned, element),
        _flagged(faulty_vectors(folder), element),
        _scaleless(folder, element),
        named,
        whole_map=True,
        strangers=False,
        mixed=False,
        moment=order.moment,
        covered=True,
        inferred=not sure,
    )


def _scaleless(folder: Folder, element: Ints) -> Flags:
    if folder.norms is None:
        return np.zeros(len(element), bool)
    return element >= folder.known_norms


def _has_strangers(ids: Strings, records: Records, rows: Sequence[WalRow]) -> bool:
    known = Strings.concatenated([records.ids, Strings.of({row.id for row in rows})])
    return bool((positions(ids, known) < 0).any())


def _flagged(flags: Flags, element: Ints) -> Flags:
    """bool (n,): the flag of each record's element, False for none."""
    found = np.zeros(len(element), bool)
    there = element >= 0
    found[there] = flags[element[there]]
    return found


def _is_mixed(folder: Folder, id_map: IdMap, element: Ints, labels: Ints, ordered: bool) -> bool:
    """Whether labels cannot be those of one history.

    In one history each label is one element's, labels that are not there yet are larger than all
    that are, and in 1.x a record that was made later has the larger label.
    """
    stored = folder.elements.labels
    if len(np.unique(stored)) != len(stored):
        return True
    both = len(id_map.label_to_id.labels) and id_map.problem is None
    if both and not np.array_equal(
        np.sort(id_map.label_to_id.labels), np.sort(id_map.id_to_label.labels)
    ):
        return True
    missing = id_map.id_to_label.labels[element < 0]
    if len(missing) and len(stored) and int(missing.min()) <= int(stored.max()):
        return True
    return bool(ordered and (np.diff(labels) <= 0).any())


def _moment(folder: Folder, target: Target, balanced: bool) -> tuple[int | None, bool]:
    """The operation that the folder was written after, if that is certain."""
    if folder.path == target.folder:
        return (target.start, True) if balanced and target.start_known else (None, False)
    if not OURS.fullmatch(folder.path.name):
        return None, False
    manifest = _manifest(folder.path)
    if manifest is None or manifest.missing != 0 or manifest.strangers != ():
        return None, False
    if manifest.watermark is None:
        return None, False
    mark = watermark(manifest.watermark.raw)
    if not mark.is_number(target.integers):
        return None, False
    never_flushed_since = target.vector_watermark is None and not target.peek.present
    return mark.value, never_flushed_since


def _manifest(folder: Path) -> Manifest | None:
    try:
        return read_manifest(folder.with_name(folder.name + MANIFEST))
    except HnswcheckError:
        return None


def _agrees_with_log(
    folder: Folder,
    element: Ints,
    records: Records,
    target: Target,
    database: Database,
    moment: int,
    complete: bool,
) -> bool:
    """Whether what the log still has of the time before says the same."""
    expected = rows_in_index(target.read_all_wal(), moment, complete)
    at = find(expected, records.ids)
    place = {expected[record]: int(element[i]) for record, i in at.items() if element[i] >= 0}
    return _holds(folder, place, database)


def _holds(folder: Folder, places: Mapping[int, int], database: Database) -> bool:
    """Whether elements hold the vectors of rows of the log.

    Args:
        places: the element of each seq_id.
    """
    norm = None if folder.norms is None else 1.0
    for page in read_wal_vectors(database, places.keys()):
        stored = folder.vectors(np.array([places[seq_id] for seq_id in page], np.int64))
        for vector, logged in zip(stored, page.values(), strict=True):
            if differs(vector, norm, np.frombuffer(logged, "<f4")):
                return False
    return True
