"""What a segment folder says of the records: whose its elements are, and of when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from hnswcheck.checks.between import between_known
from hnswcheck.checks.elements import place
from hnswcheck.checks.moment import moment_of
from hnswcheck.checks.order import Hints, Order, find_order
from hnswcheck.checks.proof import FolderProof, Grade, LogProof, begun_anew, made_from
from hnswcheck.checks.remains import Folder, better_half, was_cut
from hnswcheck.checks.vectors import differs, rows_in_index
from hnswcheck.disk.database import Database
from hnswcheck.disk.idmap import IdMap, Pairs
from hnswcheck.disk.labels import Labels, find_labels, repeated_labels
from hnswcheck.disk.opcodes import Damage
from hnswcheck.disk.records import Records
from hnswcheck.disk.strings import Flags, Ints, Strings, find, positions
from hnswcheck.disk.wal import read_wal_vectors
from hnswcheck.target import Target

#: Records that are asked of when a folder is, the latest first.
WITNESSES = 1000
#: So many pairs of an id map damage may have changed, where all others are as they must be.
EXCEPTIONS = 2


@dataclass(frozen=True, slots=True)
class Witness:
    """A folder that is asked about the records of a collection.

    Attributes:
        faulty: bool (held,): its elements whose vector cannot be what Chroma stored.
        id_map: what is left of it.
        records: after replay.
        log: what the log says of them.
    """

    folder: Folder
    faulty: Flags
    id_map: IdMap | None
    records: Records
    log: LogProof
    target: Target
    database: Database

    @property
    def is_own(self) -> bool:
        """The folder is where the segment's has to be."""
        return self.folder.path == self.target.folder

    def proofs(self) -> Iterator[FolderProof]:
        """What it proves, by its id map and by the order of the records."""
        known = np.zeros(len(self.records.ids), np.uint64)
        strangers: dict[bytes, int] = {}
        id_map = None if self.id_map is None else better_half(self.id_map)
        cut = False
        if id_map is not None:
            cut = id_map.problem is not None and id_map.problem.damage is Damage.TRUNCATED
            if cut and id_map.shape == "dict":
                id_map = self._completed(id_map)
            if cut:  # else what is in it may be wrong
                pairs = id_map.id_to_label
                at = positions(pairs.ids, self.records.ids)
                known[at[at >= 0]] = pairs.labels[at >= 0].astype(np.uint64)
                gone = np.flatnonzero(at < 0).tolist()
                strangers = {pairs.ids[i]: int(pairs.labels[i]) for i in gone}
        order = None
        if self.is_own and (id_map is None or id_map.problem is not None):
            order = self._order(known, strangers)
        named = id_map is not None and len(id_map.id_to_label.ids) > 0
        if order is not None and (order.sure or cut or not named):
            yield self._by_order(order)
        if id_map is not None and named and (cut or order is None or not order.sure):
            proof = self._by_id_map(id_map)
            if self.is_own and proof.moment is None and id_map.problem is None:
                proof = self._despite(id_map) or proof
            yield proof

    # -- by the id map

    def _completed(self, id_map: IdMap) -> IdMap:
        """With the labels that lie between those of ids whose records are neighbours."""
        pairs, elements = id_map.id_to_label, self.folder.elements
        at = positions(pairs.ids, self.records.ids)
        known = np.zeros(len(self.records.ids), np.uint64)
        known[at[at >= 0]] = pairs.labels[at >= 0].astype(np.uint64)
        live = np.setdiff1d(
            elements.labels[~elements.tombstoned], pairs.labels[at < 0].astype(np.uint64)
        )
        labels = between_known(known, live)
        new = np.flatnonzero((labels > 0) & (known == 0))
        every = Pairs(
            Strings.concatenated([pairs.ids, self.records.ids.take(new)]),
            np.concatenate([pairs.labels, labels[new].astype(np.int64)]),
        )
        whole = not len(np.setdiff1d(live, labels)) and id_map.total_elements_added is not None
        return replace(id_map, id_to_label=every, problem=None if whole else id_map.problem)

    def _by_id_map(self, id_map: IdMap) -> FolderProof:
        folder, records = self.folder, self.records
        placement = place(folder.elements, id_map)
        pairs = id_map.id_to_label
        at = positions(records.ids, pairs.ids)
        mapped = at >= 0
        element, labels = at.copy(), at.copy()
        element[mapped] = placement.element[at[mapped]]
        labels[mapped] = pairs.labels[at[mapped]]
        absent = id_map.id_to_label.labels[placement.element < 0]
        cut_off = 0 < len(absent) <= folder.lacking
        total = id_map.total_elements_added or 0
        stray = placement.unmapped & (folder.elements.labels <= np.uint64(total))
        moment, covered, balanced = None, False, False
        if id_map.problem is None:
            moment, covered, balanced = moment_of(folder.path, id_map, records, self.target)
        mixed = self._is_mixed(id_map, absent, cut_off, labels, element, balanced)
        counted = len(folder.elements.labels) + folder.lacking
        whole_map = id_map.problem is None
        unnamed = np.ones(len(pairs.ids), bool)
        unnamed[at[mapped]] = False
        one_history = not (mixed or (whole_map and stray.any()) or folder.beyond)
        whole_account = one_history and total == counted and (cut_off or not len(absent))
        torn = whole_account and folder.torn
        if not one_history or (len(absent) and not torn):
            moment = None
        if moment is not None and not self._agrees_with_log(element, moment):
            moment = None
        return self._proof(
            element,
            mapped,
            whole_map=whole_map,
            strangers=self._has_strangers(pairs.ids.take(np.flatnonzero(unnamed))),
            mixed=mixed,
            whole_account=whole_account,
            moment=moment,
            covered=covered,
        )

    def _is_mixed(
        self,
        id_map: IdMap,
        absent: Ints,
        cut_off: bool,
        labels: Ints,
        element: Ints,
        balanced: bool,
    ) -> bool:
        """Whether labels cannot be those of one history.

        In one history each label is one element's, labels that are not there yet are larger than
        all that are, and in 1.x a record that was made later has the larger label.
        """
        stored = self.folder.elements.labels
        if len(repeated_labels(stored)):
            return True
        both = len(id_map.label_to_id.labels) and id_map.problem is None
        if both and not np.array_equal(
            np.sort(id_map.label_to_id.labels), np.sort(id_map.id_to_label.labels)
        ):
            return True
        if len(absent) and not cut_off and len(stored) and int(absent.min()) <= int(stored.max()):
            return True
        if id_map.shape != "dict" or balanced:  # labels of 0.x may be among them
            return False
        there = np.flatnonzero(element >= 0)
        if (np.diff(labels[there]) > 0).all():
            return False
        # An index that was begun anew hands out labels again to old records that are written.
        by_label = there[np.argsort(labels[there])]
        made = np.maximum.accumulate(made_from(self.records, self.log)[by_label])
        ordered = (self.records.seq_ids[by_label] >= made).all()
        return not (ordered and begun_anew(labels >= 0, self.records).any())

    def _agrees_with_log(self, element: Ints, moment: int) -> bool:
        """Whether what the log still has of the time before says the same."""
        rows = rows_in_index(self.target.read_all_wal(), moment, self.target.history().complete)
        at = find(rows, self.records.ids)
        places = {rows[record]: int(element[i]) for record, i in at.items() if element[i] >= 0}
        return all(self._compared(places))

    def _belongs(self, element: Ints, whole_account: bool) -> bool:
        """Whether the elements are those that the id map is about, and no other collection's.

        The log tells, by a vector that only the add of its record wrote; where it has none of
        these, that as many elements are there as labels, or were before the file was cut.
        """
        log = self.log
        only = np.flatnonzero((element >= 0) & (log.seq_ids > 0) & (log.made == log.seq_ids))
        same = set(self._compared({int(log.seq_ids[i]): int(element[i]) for i in only.tolist()}))
        if same or not whole_account:
            return True in same
        return not self.folder.lacking or was_cut(self.folder)

    def _compared(self, places: Mapping[int, int]) -> Iterator[bool]:
        """Whether elements hold the vectors of rows of the log.

        Args:
            places: elements by seq_id.
        """
        norm = None if self.folder.norms is None else 1.0
        for page in read_wal_vectors(self.database, places.keys()):
            stored = self.folder.vectors(np.array([places[seq_id] for seq_id in page], np.int64))
            for vector, logged in zip(stored, page.values(), strict=True):
                yield not differs(vector, norm, np.frombuffer(logged, "<f4"))

    def _has_strangers(self, ids: Strings) -> bool:
        rows = self.target.read_all_wal()
        known = Strings.concatenated([self.records.ids, Strings.of({row.id for row in rows})])
        return bool((positions(ids, known) < 0).any())

    # -- by the order of the records

    def _despite(self, id_map: IdMap) -> FolderProof | None:
        """By the order, if the id map says the same but for a few pairs; None if it does not.

        Damage may have changed these, or their records in sqlite. Any other history would show
        in more of them, as each label that it hands out moves all that follow.
        """
        folder, log = self.folder, self.log
        order = self._order(np.zeros(len(self.records.ids), np.uint64), {})
        if order is None or not order.sure:
            return None
        pairs, elements = id_map.id_to_label, folder.elements
        labels = pairs.labels.astype(np.uint64)
        at = positions(pairs.ids, self.records.ids)
        live = np.isin(labels, elements.labels[~elements.tombstoned])
        same = (at >= 0) & (order.labels[at] == labels)
        wrong = live & ~same
        if np.count_nonzero(wrong) > EXCEPTIONS or np.count_nonzero(same) <= EXCEPTIONS:
            return None
        if self._has_strangers(pairs.ids.take(np.flatnonzero((at < 0) & ~live))):
            return None  # newer than sqlite
        counts = {id_map.total_elements_added, len(elements.labels), folder.header.count}
        changed = (log.made == 0) | (log.made != self.records.seq_ids)
        if (len(counts) > 1 or folder.lacking or folder.beyond) and changed[order.labels > 0].any():
            return None  # elements may be of several moments
        disputed = np.isin(order.labels, labels[wrong])
        disputed[at[wrong & (at >= 0)]] = True
        return self._by_order(order, disputed)

    def _order(self, known: Labels, strangers: Mapping[bytes, int]) -> Order | None:
        """The labels of the records by their order, if 1.x wrote them."""
        target, labels = self.target, self.folder.elements.labels
        mark = target.vector_watermark
        unique = not len(repeated_labels(labels))
        if not (target.integers and unique and (mark is None or mark.is_number(True))):
            return None
        flushed = mark.value if mark else 0
        rows = target.read_all_wal()
        vectors = rows_in_index(rows, flushed, target.history().complete)
        touched = {row.id for row in rows if row.seq_id > flushed}
        log = self.log
        of_log = (log.grades == Grade.PROVEN) & (log.seq_ids > 0) & (log.seq_ids <= flushed)
        for i in np.flatnonzero(of_log).tolist():
            if (id := self.records.ids[i]) not in touched:
                vectors[id] = int(log.seq_ids[i])
        made = np.flatnonzero((log.made == flushed) & (log.seq_ids == flushed) & of_log)
        live = np.sort(labels[~self.folder.elements.tombstoned])
        first = self.records.ids[int(made[0])] if len(made) else None
        hints = Hints(flushed, vectors, first, known, strangers, self._holds)
        return find_order(self.records, rows, live, hints)

    def _holds(self, label: int, seq_id: int) -> bool:
        at = find_labels(self.folder.elements.labels, np.array([label], np.uint64))
        return all(self._compared({seq_id: int(at[0])}))

    def _by_order(self, order: Order, disputed: Flags | None = None) -> FolderProof:
        element = np.full(len(order.labels), -1, np.int64)
        named = order.labels > 0
        element[named] = find_labels(self.folder.elements.labels, order.labels[named])
        return self._proof(
            element,
            named,
            whole_map=True,
            strangers=False,
            mixed=False,
            whole_account=not self.folder.beyond,
            moment=order.moment,
            covered=True,
            inferred=np.full(len(element), not order.sure) if disputed is None else disputed,
        )

    # -- both

    def _proof(
        self,
        element: Ints,
        mapped: Flags,
        *,
        whole_map: bool,
        strangers: bool,
        mixed: bool,
        whole_account: bool,
        moment: int | None,
        covered: bool,
        inferred: Flags | None = None,
    ) -> FolderProof:
        folder = self.folder
        damaged = _flagged(self.faulty, element)
        known = len(folder.elements.labels) if folder.norms is None else folder.known_norms
        return FolderProof(
            element,
            _flagged(folder.elements.tombstoned, element),
            _flagged(folder.relabelled, element),
            damaged,
            element >= known,
            mapped,
            whole_map,
            strangers,
            mixed,
            whole_account,
            self._belongs(np.where(damaged, -1, element), whole_account),
            moment,
            covered,
            self._after(np.where(damaged, -1, element)),
            np.zeros(len(element), bool) if inferred is None else inferred,
        )

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
                seq_id and self._holds(int(self.folder.elements.labels[element[i]]), seq_id)
            ):
                return int(made[i])
        return int(made[self.log.ever].max(initial=0))


def _flagged(flags: Flags, element: Ints) -> Flags:
    """bool (n,): the flag of each record's element, False for none."""
    found = np.zeros(len(element), bool)
    there = element >= 0
    found[there] = flags[element[there]]
    return found
