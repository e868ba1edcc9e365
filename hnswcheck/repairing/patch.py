"""Changes smaller than a new index, where one is enough.

The files of a folder are kept: the segment's own, or one that was moved aside. What may be wrong is
who its elements belong to, where replay begins, and what lies behind the last link list. So the id
map is written anew, with every element that is nobody's marked deleted; the watermark is set to the
moment that the folder is of, or before everything that the log still has; link_lists.bin is cut.
What Chroma makes of it when it replays the log must be what was found to be each record's vector.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnswcheck.checks.ledger import check_watermark
from hnswcheck.checks.vectors import differs
from hnswcheck.findings import REGISTRY
from hnswcheck.formats.arrays import Ints, Labels
from hnswcheck.formats.id_map import IdMap, Pairs
from hnswcheck.formats.level0 import Elements
from hnswcheck.formats.segment_files import LINKS
from hnswcheck.formats.strings import find, positions
from hnswcheck.repairing.index_settings import LARGEST_COUNT
from hnswcheck.replay.balance import balance
from hnswcheck.replay.index import replay_index
from hnswcheck.replay.vectors import written_vectors
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.sources import FIRST_FOLDER, LOG, Salvaged
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.records import Records
from hnswcheck.store.releases import Release
from hnswcheck.store.segment import SegmentFolder, open_segment


@dataclass(frozen=True, slots=True)
class Relabelling:
    """A new id map.

    Attributes:
        chosen: int64 (m,): the records that it names.
        labels: uint64 (m,): of their elements.
        last_label: the label that was handed out last.
        dead: int64: elements that are nobody's and not marked deleted yet.
    """

    chosen: Ints
    labels: Labels
    last_label: int
    dead: Ints


@dataclass(frozen=True, slots=True)
class Mend:
    """What is done to a folder so that it is the segment's, and whole.

    Attributes:
        folder: whose files are kept.
        adopted: it is not the segment's own.
        start: VECTOR's new watermark, after which Chroma replays the log; None if it is right.
        relabelling: None where the id map is right.
        links_size: bytes that link_lists.bin keeps; None for all.
    """

    folder: Path
    adopted: bool
    start: int | None
    relabelling: Relabelling | None
    links_size: int | None

    def describe(self) -> Iterator[str]:
        """What is done, a line each."""
        if self.adopted:
            yield f"take the folder {self.folder.name}"
        if new := self.relabelling:
            yield f"write the id map anew: {len(new.chosen):,} records"
            if len(new.dead):
                yield f"mark {len(new.dead):,} elements deleted that belong to no record"
        if self.links_size is not None:
            yield f"cut link_lists.bin behind its last record, at {self.links_size:,} bytes"
        if self.start is not None:
            yield f"set VECTOR's watermark to {self.start}"


def choose_mend(
    view: CollectionView, errors: frozenset[str], found: Salvaged, database: Database
) -> Mend | None:
    """A change smaller than a new index, by which every record gets its best vector, if there is.

    Args:
        errors: ids of the findings that are errors.

    Raises:
        StoreChanged, StoreUnreadable: a folder could not be read.
    """
    for number, (folder, proof) in enumerate(
        zip(found.folders, found.assignments, strict=True), FIRST_FOLDER
    ):
        adopted = folder.path != view.folder
        elsewhere = ~np.isin(found.sources, [LOG, number])
        if proof is None or proof.mixed or elsewhere.any():
            continue
        if not adopted and not all(REGISTRY[id].patchable for id in errors):
            continue
        segment = open_segment(folder.path)
        if segment.header is None or segment.header.count != len(folder.elements.labels):
            continue
        if folder.relabelled.any():  # Chroma reads what is there
            continue
        mend = _mend(view, segment, found, proof, number, adopted, database)
        if mend is not None:
            return mend
    return None


def last_operation(view: CollectionView) -> int:
    """The last operation on the collection that sqlite has or will have."""
    rows = view.read_all_wal()
    return max(rows[-1].seq_id if rows else 0, min(view.metadata_start, view.highest))


def _mend(
    view: CollectionView,
    segment: SegmentFolder,
    found: Salvaged,
    proof: FolderAssignment,
    number: int,
    adopted: bool,
    database: Database,
) -> Mend | None:
    elements = found.folders[number - FIRST_FOLDER].elements
    start = _start(view, proof)
    id_map, relabelling = segment.read_id_map(), None

    def is_enough(id_map: IdMap, element: Ints) -> bool:
        return _is_enough(view, found, number, start, id_map, element, database)

    if not (id_map and _fits(id_map, elements) and is_enough(id_map, proof.element)):
        good = (proof.element >= 0) & ~proof.tombstoned & ~proof.damaged
        rows = view.read_all_wal()
        # What the log writes anew needs no element, and an add is ignored where there is one.
        written = {row.id for row in rows if row.seq_id > start and row.operation != "update"}
        for left in (set[bytes](), written):
            again = good.copy()
            again[list(find(left, found.records.ids).values())] = False
            element = np.where(again, proof.element, -1)
            relabelling = _relabelling(element, elements, id_map)
            if relabelling is None:
                continue
            if is_enough(_renewed(relabelling, found.records, view.release), element):
                break
        else:
            return None
    mark = view.vector_watermark
    right = mark is not None and mark.value == start
    right &= not any(check_watermark(mark, view.release, view.highest, "VECTOR"))
    size = _links_size(segment)
    return Mend(segment.path, adopted, None if right else start, relabelling, size)


def _start(view: CollectionView, proof: FolderAssignment) -> int:
    """The moment of the folder, or one before all that the log has."""
    if proof.as_of is not None and 0 <= proof.as_of <= view.highest:
        return proof.as_of
    rows = view.read_all_wal()
    return rows[0].seq_id - 1 if rows else last_operation(view)


def _fits(id_map: IdMap, elements: Elements) -> bool:
    """Whether an id map and elements say the same: each live element has an id, each id one."""
    if id_map.problem is not None or id_map.total_elements_added is None:
        return False
    forward, backward = id_map.id_to_label, id_map.label_to_id
    at = positions(forward.ids, backward.ids)
    if len(at) != len(backward.ids) or (at < 0).any():
        return False
    live = np.sort(elements.labels[~elements.tombstoned])
    return (
        np.array_equal(forward.labels, backward.labels[at])
        and np.array_equal(np.sort(forward.labels).astype(np.uint64), live)
        and id_map.total_elements_added >= int(elements.labels.max(initial=0))
    )


def _relabelling(element: Ints, elements: Elements, id_map: IdMap | None) -> Relabelling | None:
    """An id map of the records that have an element; None if none has.

    Args:
        element: int64 (n,): of each record, -1 for none.
    """
    chosen = np.flatnonzero(element >= 0)
    at = element[chosen]
    taken = np.zeros(len(elements.labels), bool)
    taken[at] = True
    if not len(at) or np.count_nonzero(taken) < len(at):
        return None
    total = (id_map.total_elements_added if id_map else None) or 0
    last_label = max(int(elements.labels.max()), total)
    if last_label > LARGEST_COUNT:
        return None
    dead = np.flatnonzero(~(elements.tombstoned | taken))
    return Relabelling(chosen, elements.labels[at], last_label, dead)


def _renewed(new: Relabelling, records: Records, release: Release) -> IdMap:
    pairs = Pairs(records.ids.take(new.chosen), new.labels.astype(np.int64))
    return IdMap(release.id_map, None, new.last_label, None, pairs, pairs, None)


def _is_enough(
    view: CollectionView,
    found: Salvaged,
    number: int,
    start: int,
    id_map: IdMap,
    element: Ints,
    database: Database,
) -> bool:
    """Whether replay from there makes both sides name the same records, with the right vectors.

    Args:
        number: of the folder.
        element: int64 (n,): of each record, as the id map says.
    """
    rows, ids = view.read_all_wal(), id_map.id_to_label.ids
    replay = replay_index(rows, start, id_map, None, view.release)
    after = balance(found.records.ids, replay, ids)
    pending = [row for row in rows if row.seq_id > start]
    if after.missing or after.phantom or any(row.fault for row in pending):
        return False
    touched = {row.id for row in pending}
    written = written_vectors(pending, set(find(touched, ids)))
    due = np.where((found.sources == LOG) & (found.at > start), found.at, 0)
    made = np.zeros(len(due), np.int64)
    for id, i in find(touched, found.records.ids).items():
        made[i] = written.get(id, 0)
    if (made[made != due] != 0).any():
        return False
    # An add of what the folder has already is ignored: it must have that very vector.
    kept = np.flatnonzero(made != due)
    if not len(kept) or (element[kept] < 0).any():
        return not len(kept)
    dimension = view.collection.dimension or 0
    folder = found.folders[number - FIRST_FOLDER]
    norm = None if folder.norms is None else 1.0
    logged = np.concatenate(list(found.read(kept, database, dimension)))
    stored = folder.vectors(element[kept])
    return not any(differs(a, norm, b) for a, b in zip(stored, logged, strict=True))


def _links_size(segment: SegmentFolder) -> int | None:
    """Where link_lists.bin should end; None where it does."""
    links = segment.read_links()
    if links is None or links.bad is not None:
        return None
    return links.used_bytes if segment.states[LINKS].size > links.used_bytes else None
