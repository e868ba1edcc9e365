"""Changes to a copy of a folder that are enough to repair a segment, so that no index is built.

The folder is the segment's own, or one that was moved aside. Its vectors and links are good; what
may be wrong is which record each element belongs to, where replay begins, and what lies behind the
last link list. So the id map is written anew, with every element that belongs to no record marked
deleted; the watermark is set to the operation up to which the folder is complete, or before all
that the log still has; link_lists.bin is cut. A patch is chosen only if the replay of the log then
gives every record the best vector that was found for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from hnswcheck.salvaging.damaged_segment import DamagedSegment
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.sources import FIRST_FOLDER, LOG, Salvaged
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.records import Records
from hnswcheck.store.releases import Release
from hnswcheck.store.segment import SegmentFolder, open_segment
from hnswcheck.store.wal import WalRow


@dataclass(frozen=True, slots=True)
class Relabelling:
    """A new id map.

    Attributes:
        chosen: int64 (m,): the records that it names.
        labels: uint64 (m,): the labels of their elements.
        last_label: the label that was handed out last.
        dead: int64 (k,): elements that belong to no record, and are to be marked deleted.
    """

    chosen: Ints
    labels: Labels
    last_label: int
    dead: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What is changed in a copy of a folder, so that it can be the segment's.

    Attributes:
        folder: the folder that is copied.
        adopted: it is not the segment's own folder.
        start: VECTOR's new watermark, after which Chroma replays the log; None if it is right.
        relabelling: the new id map; None if the present one is right.
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


def choose_patch(errors: frozenset[str], found: Salvaged, database: Database) -> Patch | None:
    """A patch that gives every record its best vector; None if only a new index does.

    Args:
        errors: ids of the findings that are errors.

    Raises:
        StoreChanged, StoreUnreadable: a folder could not be read.
    """
    view = found.view
    folders = zip(found.folders, found.assignments, strict=True)
    for number, (folder, proof) in enumerate(folders, FIRST_FOLDER):
        adopted = folder.path != view.folder
        elsewhere = ~np.isin(found.sources, [LOG, number])
        if proof is None or proof.mixed or elsewhere.any():
            continue
        if not adopted and not all(REGISTRY[id].patchable for id in errors):
            continue
        segment = open_segment(folder.path)
        if segment.header is None or segment.header.count != len(folder.elements.labels):
            continue
        if folder.relabelled.any():  # Chroma would read the labels that are there
            continue
        candidate = _Candidate(
            view=view,
            found=found,
            database=database,
            folder=folder,
            segment=segment,
            proof=proof,
            start=_start(view, proof),
        )
        patch = candidate.patch(adopted)
        if patch is not None:
            return patch
    return None


def last_operation(view: CollectionView) -> int:
    """The seq_id of the last operation on the collection that sqlite has or will have.

    Where there is none, and 0 is no watermark to the line, that of any collection.
    """
    rows = view.read_all_wal()
    last = max(rows[-1].seq_id if rows else 0, min(view.metadata_start, view.highest))
    return last or (view.highest if view.opener.zero_skips_all else 0)


def _start(view: CollectionView, proof: FolderAssignment) -> int:
    """The operation up to which the folder is complete; if unknown, one before all of the log."""
    if proof.as_of is not None and 0 <= proof.as_of <= view.highest:
        return proof.as_of
    rows = view.read_all_wal()
    return rows[0].seq_id - 1 if rows else last_operation(view)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A folder that a patch may make the segment's.

    Attributes:
        found: where the best vector of each record is.
        folder, segment: the same folder, as salvage and as Chroma reads it.
        proof: which element of the folder belongs to each record.
        start: VECTOR's watermark, after which Chroma would replay the log into the folder.
    """

    view: CollectionView
    found: Salvaged
    database: Database
    folder: DamagedSegment
    segment: SegmentFolder
    proof: FolderAssignment
    start: int

    def patch(self, adopted: bool) -> Patch | None:
        """The changes that are enough; None if there are none."""
        id_map, relabelling = self.segment.read_id_map(), None
        if not self._is_right(id_map):
            relabelling = self._relabelling(id_map)
            if relabelling is None:
                return None
        start = None if self._watermark_is_right() else self._watermark()
        if start == 0 and self.view.opener.zero_skips_all:
            return None
        return Patch(
            folder=self.segment.path,
            adopted=adopted,
            start=start,
            relabelling=relabelling,
            links_size=_links_size(self.segment),
        )

    def _is_right(self, id_map: IdMap | None) -> bool:
        """Whether the id map of the folder can stay as it is."""
        if id_map is None or not _fits(id_map, self.folder.elements):
            return False
        return self._replays_right(id_map, self.proof.element)

    def _watermark_is_right(self) -> bool:
        mark, view = self.view.vector_watermark, self.view
        if mark is None or view.lift or mark.value != self.start:
            return False
        return not any(check_watermark(mark, view.opener, view.highest, "VECTOR"))

    def _watermark(self) -> int:
        """The watermark after which Chroma replays the same rows, as the log has their numbers."""
        view = self.view
        if not view.lift or self.start > view.lift:
            return view.logged(self.start)
        before_lifted = view.logged(view.metadata_start + 1) - 1
        return min(self.start, before_lifted)

    def _relabelling(self, id_map: IdMap | None) -> Relabelling | None:
        """A new id map with which replay comes out right; None if there is none.

        It names every record that has a good element. If that does not come out right, it leaves
        out the records that the log writes anew: Chroma ignores an add of a record that it names.
        """
        proof, ids = self.proof, self.found.records.ids
        good = (proof.element >= 0) & ~proof.tombstoned & ~proof.damaged
        rows = self.view.read_all_wal()
        written = {r.id for r in rows if r.seq_id > self.start and r.operation != "update"}
        for left_out in (set[bytes](), written):
            named = good.copy()
            named[list(find(left_out, ids).values())] = False
            element = np.where(named, proof.element, -1)
            new = _relabel(element, self.folder.elements, id_map)
            if new is None:
                continue
            if self._replays_right(_new_id_map(new, self.found.records, self.view.writer), element):
                return new
        return None

    def _replays_right(self, id_map: IdMap, element: Ints) -> bool:
        """Whether replay gives records and index the same ids, and each record its best vector.

        Args:
            element: int64 (n,): each record's element by the id map, -1 for none.
        """
        rows, ids = self.view.read_all_wal(), id_map.id_to_label.ids
        view = self.view
        replay = replay_index(rows, self.start, id_map, None, view.opener, view.settings)
        after = balance(self.found.records.ids, replay, ids)
        pending = [row for row in rows if row.seq_id > self.start]
        if after.missing or after.phantom or any(row.fault for row in pending):
            return False
        best = np.where(self.found.sources == LOG, self.found.at, 0)
        written = self._written_rows(pending, id_map)
        if (written[written != best] != 0).any():
            return False
        return self._holds(np.flatnonzero(written != best), element)

    def _written_rows(self, pending: Sequence[WalRow], id_map: IdMap) -> Ints:
        """int64 (n,): the pending row whose vector each record has after replay, 0 for none."""
        touched = {row.id for row in pending}
        rows = written_vectors(pending, set(find(touched, id_map.id_to_label.ids)))
        written = np.zeros(len(self.found.records.ids), np.int64)
        for id, record in find(touched, self.found.records.ids).items():
            written[record] = rows.get(id, 0)
        return written

    def _holds(self, records: Ints, element: Ints) -> bool:
        """Whether the folder already has the vectors that the log has of some records.

        Replay begins behind the row, or ignores the add of a record that the folder has, so that
        the folder's vector stays.
        """
        if (element[records] < 0).any():
            return False
        dimension = self.view.collection.dimension or 0
        norm = None if self.folder.norms is None else 1.0
        begin = 0
        for logged in self.found.read(records, self.database, dimension):
            stored = self.folder.vectors(element[records[begin : begin + len(logged)]])
            if any(differs(a, norm, b) for a, b in zip(stored, logged, strict=True)):
                return False
            begin += len(logged)
        return True


def _fits(id_map: IdMap, elements: Elements) -> bool:
    """Whether the id map gives every live element one id, and every id one live element."""
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


def _relabel(element: Ints, elements: Elements, id_map: IdMap | None) -> Relabelling | None:
    """An id map of the records that have an element; None if there can be none.

    Args:
        element: int64 (n,): each record's element, -1 for none.
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


def _new_id_map(new: Relabelling, records: Records, release: Release) -> IdMap:
    pairs = Pairs(records.ids.take(new.chosen), new.labels.astype(np.int64))
    return IdMap(
        shape=release.id_map,
        dimensionality=None,
        total_elements_added=new.last_label,
        max_seq_id=None,
        id_to_label=pairs,
        label_to_id=pairs,
        problem=None,
    )


def _links_size(segment: SegmentFolder) -> int | None:
    """The size that link_lists.bin should have, in bytes; None if it has that size."""
    links = segment.read_links()
    if links is None or links.bad is not None:
        return None
    return links.used_bytes if segment.states[LINKS].size > links.used_bytes else None
