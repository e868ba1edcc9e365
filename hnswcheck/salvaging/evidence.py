"""A folder beside the records and the log, to ask whose its elements are and when it was written.

A vector of the log that is also an element's proves that this element is the record's. That other
collections lack some of the ids proves that the folder is no other collection's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hnswcheck.checks.rolled_back import rolled_back
from hnswcheck.checks.vectors import differs
from hnswcheck.formats.arrays import Flags, Ints, Labels
from hnswcheck.formats.id_map import IdMap, Pairs
from hnswcheck.formats.labels import find_labels
from hnswcheck.formats.pickle_tokens import Damage
from hnswcheck.formats.strings import Strings, positions
from hnswcheck.replay.vectors import rows_in_index
from hnswcheck.salvaging.damaged_segment import DamagedSegment
from hnswcheck.salvaging.element_damage import EXCEPTIONS, ElementDamage, was_cut
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.grading import only_made
from hnswcheck.salvaging.log_evidence import LogEvidence
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.database import Database
from hnswcheck.store.record_ids import others_have
from hnswcheck.store.records import Records
from hnswcheck.store.releases import flushes_in_transaction
from hnswcheck.store.wal import read_wal_vectors

#: Records that are asked of when a folder is, the latest first.
WITNESSES = 1000
#: So many ids are looked for in other collections.
SAMPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A folder that is asked about the records of a collection.

    Attributes:
        id_map: what is left of it.
        records: after replay.
        log: what the log says of them.
    """

    folder: DamagedSegment
    damage: ElementDamage
    id_map: IdMap | None
    records: Records
    log: LogEvidence
    view: CollectionView
    database: Database

    @property
    def is_own(self) -> bool:
        """The folder is where the segment's has to be."""
        return self.folder.path == self.view.folder

    def belongs(self, element: Ints, named: Flags, whole_account: bool) -> bool:
        """Whether the elements are those that the id map is about, and no other collection's.

        The log tells, by a vector that only the add of its record wrote; where it has none of
        these, that as many elements are there as labels, or were before the file was cut.
        """
        same = self.said_by_log(element)
        if same or not whole_account:
            return True in same
        return self.is_no_others(named) and (not self.folder.lacking or was_cut(self.folder))

    def said_by_log(self, element: Ints) -> set[bool]:
        """Whether elements have the vectors that only the adds of their records wrote."""
        log = self.log
        there = (element >= 0) & ~flagged(self.damage.faulty, element)
        only = np.flatnonzero(there & (log.seq_ids > 0) & (log.made == log.seq_ids))
        return set(self.compared({int(log.seq_ids[i]): int(element[i]) for i in only.tolist()}))

    def is_no_others(self, named: Flags) -> bool:
        """Whether this can be no other collection's folder, by the ids that it names.

        Args:
            named: bool (n,): those of these records.
        """
        count = len(self.id_map.id_to_label.ids) if self.id_map else 0
        there = np.flatnonzero(named)
        some = there[np.linspace(0, len(there) - 1, min(len(there), SAMPLE)).astype(np.int64)]
        ids = [self.records.ids[i] for i in some.tolist()]
        return not (ids and others_have(self.database, self.view.collection, ids, count))

    def logged(self, as_of: int) -> dict[bytes, int]:
        """For each id whose vector must be that of a row of the log, the row's seq_id.

        Args:
            as_of: the last operation that counts.
        """
        rows, log = self.view.read_all_wal(), self.log
        complete, release = self.view.history().complete, self.view.writer
        found = rows_in_index(rows, as_of, complete, {}, release)
        touched = {row.id for row in rows if row.seq_id > as_of}
        sure = (log.grades == Grade.PROVEN) & (log.seq_ids > 0) & (log.seq_ids <= as_of)
        for i in np.flatnonzero(sure).tolist():
            if (id := self.records.ids[i]) not in touched:
                found[id] = int(log.seq_ids[i])
        return found

    def compared(self, places: Mapping[int, int]) -> Iterator[bool]:
        """Whether elements hold the vectors of rows of the log.

        Args:
            places: elements by seq_id.
        """
        norm = None if self.folder.norms is None else 1.0
        for page in read_wal_vectors(self.database, places.keys(), self.view.lift):
            stored = self.folder.vectors(np.array([places[seq_id] for seq_id in page], np.int64))
            for vector, logged in zip(stored, page.values(), strict=True):
                yield not differs(vector, norm, np.frombuffer(logged, "<f4"))

    def are_unknown(self, ids: Strings) -> Flags:
        """bool (ids,): neither a record nor in the log."""
        if not len(ids):
            return np.zeros(0, bool)
        rows = self.view.read_all_wal()
        known = Strings.concatenated([self.records.ids, Strings.of({row.id for row in rows})])
        return np.asarray(positions(ids, known) < 0)

    def holds(self, label: int, seq_id: int) -> bool:
        """Whether the element with a label has the vector of a row of the log."""
        at = find_labels(self.folder.elements.labels, np.array([label], np.uint64))
        return all(self.compared({seq_id: int(at[0])}))

    def likeness(self, pairs: Pairs, labels: Labels, possible: Flags) -> tuple[Flags, Flags] | None:
        """Which records have these labels by an id map as well, and for which it speaks against.

        None where it does so for more than damage changes, or names ids of a later moment.

        Args:
            labels: uint64 (n,): of the records, at least one; 0 where it is not known.
            possible: bool (pairs,): the label can be a record's.

        Returns:
            bool (n,), bool (n,).
        """
        at = positions(pairs.ids, self.records.ids)
        named = pairs.labels.astype(np.uint64)
        same = (at >= 0) & (labels[at] == named)
        wrong = possible & ~same
        later = np.flatnonzero((at < 0) & ~possible)
        if np.count_nonzero(wrong) > EXCEPTIONS or self.are_unknown(pairs.ids.take(later)).any():
            return None
        alike, disputed = np.zeros(len(labels), bool), np.isin(labels, named[wrong])
        alike[at[same]] = True
        disputed[at[wrong & (at >= 0)]] = True
        return alike, disputed

    def assignment(
        self,
        element: Ints,
        mapped: Flags,
        *,
        whole_map: bool,
        names_unknown_ids: bool,
        mixed: bool,
        belongs: bool,
        as_of: int | None,
        covered: bool,
        guessed: Flags | None = None,
        disputed: Flags | None = None,
        by_order: bool = False,
    ) -> FolderAssignment:
        """All that is known once each record has its element: see :class:`FolderAssignment`."""
        folder = self.folder
        damaged = flagged(self.damage.faulty, element)
        scaleless = flagged(self.damage.scaleless, element)
        if self.damage.norms_lost:
            scaleless |= ~only_made(self.records, self.log)
        none = np.zeros(len(element), bool)
        return FolderAssignment(
            element=element,
            tombstoned=flagged(folder.elements.tombstoned, element),
            doubtful=flagged(self.damage.doubtful, element),
            damaged=damaged,
            label_twice=flagged(folder.label_twice, element),
            scaleless=scaleless,
            mapped=mapped,
            whole_map=whole_map,
            names_unknown_ids=names_unknown_ids,
            mixed=mixed,
            belongs=belongs,
            as_of=as_of,
            covered=covered,
            after=self._after(np.where(damaged, -1, element)),
            guessed=none if guessed is None else guessed,
            disputed=none if disputed is None else disputed,
            undone=self.undone,
            by_order=by_order,
            earlier=self.folder.earlier,
        )

    @property
    def undone(self) -> bool:
        """A call that the log has forgotten may have changed any element.

        The id map is cut short, or the index files are newer, where the flush was part of a
        transaction; or the id map has operations that the log does not have.
        """
        if self.id_map is None or not flushes_in_transaction(self.id_map.shape, self.view.writer):
            return False
        problem, count = self.id_map.problem, len(self.folder.elements.labels)
        if problem is not None:
            return problem.damage is Damage.TRUNCATED
        if count > (self.id_map.total_elements_added or 0):
            return True
        return self.is_own and bool(rolled_back(self.id_map, self.view))

    def _after(self, element: Ints) -> int:
        """The last operation known to have made a record whose element is here.

        A record may have been deleted and made again since: what is here must be of its last life,
        as no other record ever had its id, or as the log has its vector.
        """
        made = np.where(element >= 0, self.log.made, 0)
        for i in np.argsort(made)[::-1][:WITNESSES].tolist():
            if not made[i]:
                break
            seq_id = int(self.log.seq_ids[i])
            if self.log.ever[i] or (
                seq_id and self.holds(int(self.folder.elements.labels[element[i]]), seq_id)
            ):
                return int(made[i])
        return int(made[self.log.ever].max(initial=0))


def flagged(flags: Flags, element: Ints) -> Flags:
    """bool (n,): the flag of each record's element, False for none."""
    found = np.zeros(len(element), bool)
    there = element >= 0
    found[there] = flags[element[there]]
    return found
