"""Whose element is it, when the id map is gone, or half of it?

Chroma 1.x hands out labels in the order of the log, and sqlite makes rows in the same order: the
live labels, ascending, are the ids of one moment in the order of their rows. Which moment it was
the log tells: it holds everything since the last flush that sqlite knows of, so that the ids at
each later moment are known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints, Labels
from hnswcheck.formats.strings import find
from hnswcheck.replay.effects import Effect, effect_on_record
from hnswcheck.salvaging.grade import NEVER
from hnswcheck.salvaging.label_gaps import lay_out
from hnswcheck.salvaging.log_operations import with_operations
from hnswcheck.store.records import Records
from hnswcheck.store.wal import WalRow

#: So many sets of ids are tried at most, and so many ids in all of them.
MOST_LAYOUTS, MOST_LAID_OUT = 1 << 10, 1 << 25


@dataclass(frozen=True, slots=True)
class Order:
    """The moment at which the files may have been written.

    Attributes:
        as_of: the last operation that they hold.
        labels: uint64 (n,): the label of each record, 0 for those that were made later and those
            whose label cannot be told.
        sure: the log proves it.
    """

    as_of: int
    labels: Labels
    sure: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What is known besides the order.

    Attributes:
        flushed: VECTOR's watermark.
        vectors: the rows up to there that wrote the vector of an id.
        made: the id that the operation at the watermark made, if it made one.
        labels: uint64 (n,): of each record, as far as half an id map tells, else 0.
        unknown_ids: the same for ids that are no records any more.
        tombstones: elements with a delete mark, as every deleted one has.
        holds: whether the element of a label holds the vector of a row of the log.
    """

    flushed: int
    vectors: Mapping[bytes, int]
    made: bytes | None
    labels: Labels
    unknown_ids: Mapping[bytes, int]
    tombstones: int
    holds: Callable[[int, int], bool]


@dataclass(slots=True, kw_only=True)
class _Ids:
    """The ids of one moment, and then of the next.

    Attributes:
        unplaced: were there at the flush, but where nobody knows, as their rows are gone by now.
        old: were there at the flush, in the order of their rows.
        made: made since, in the order of the log.
        vectors: the row that wrote the vector of each, as far as the log has it.
        deleted: so many that were there at the flush are not any more.
    """

    unplaced: set[bytes]
    old: dict[bytes, None]
    made: dict[bytes, None]
    vectors: dict[bytes, int]
    deleted: int = 0

    def __contains__(self, id: bytes) -> bool:
        return id in self.made or id in self.old or id in self.unplaced

    def __len__(self) -> int:
        return len(self.made) + len(self.old) + len(self.unplaced)

    def apply(self, row: WalRow) -> bool:
        """Go on by one row; whether other ids are there then.

        Asks which ids the index has and in which order they were made, for which a row counts
        whose vector nobody can read; and of which row each vector is, for which it does not.
        """
        match effect_on_record(row, row.id in self):
            case Effect.DELETES:
                self.deleted += row.id not in self.made
                self.unplaced.discard(row.id)
                for ids in (self.old, self.made, self.vectors):
                    ids.pop(row.id, None)
                return True
            case Effect.CREATES:
                self.made[row.id] = None
                self._write(row)
                return True
            case Effect.CHANGES if row.vector_bytes is not None or row.obscure:
                self._write(row)
            case _:
                pass
        return False

    def _write(self, row: WalRow) -> None:
        if row.obscure:
            self.vectors.pop(row.id, None)
        else:
            self.vectors[row.id] = row.seq_id


@dataclass(slots=True, kw_only=True)
class _Trial:
    """One set of ids laid over the labels, and how far the log agrees.

    Attributes:
        labels: of the records.
        made: of ids that were made since the flush.
        certain: each id has the one label that it can have.
        wrong: an id whose element holds another vector than the log; None if there is none.
        checked: that is known.
        taken: it is among the orders that fit.
    """

    labels: Labels
    made: dict[bytes, int]
    certain: bool
    wrong: bytes | None = None
    checked: bool = False
    taken: bool = False


@dataclass(slots=True, kw_only=True)
class _Search:
    """The walk from the flush through the log, which asks at each moment whether it fits.

    Attributes:
        live: uint64, ascending: the labels of live elements.
        untouched: int64: records that no row since the flush names, so that they were there.
        place: of ids that the log names, the number of the record.
        ids: those of the moment that the walk has come to.
        seen: whether the element of a label holds the vector of a row, as far as it was asked.
    """

    records: Records
    hints: Hints
    live: Labels
    untouched: Ints
    place: dict[bytes, int]
    ids: _Ids
    seen: dict[tuple[int, int], bool] = field(default_factory=dict)

    def fits(self) -> bool:
        """Whether so many ids are there as labels, and the newest has the vector of the last."""
        if len(self.untouched) + len(self.ids) != len(self.live):
            return False
        if self.ids.deleted > self.hints.tombstones:
            return False
        newest = next(reversed(self.ids.made), b"")  # the least that has to be right
        row = self.ids.vectors.get(newest)
        return row is None or self._agree(int(self.live[-1]), row)

    def try_ids(self) -> _Trial | None:
        """The ids of this moment laid over the labels; None where that cannot be."""
        ids, hints, place = self.ids, self.hints, self.place
        unknown_ids = hints.unknown_ids
        if any(id not in ids for id in unknown_ids):
            return None
        named = [unknown_ids[id] for id in ids.unplaced if id in unknown_ids]
        live = np.setdiff1d(self.live, np.array(named, np.uint64)) if named else self.live
        old = np.sort(np.append(self.untouched, [place[id] for id in ids.old]).astype(np.int64))
        pool, above = np.split(live, [len(live) - len(ids.made)])
        layout = lay_out(self.records.rowids[old], pool, hints.labels[old])
        if layout is None:
            return None
        labels = np.zeros(len(self.records.ids), np.uint64)
        labels[old] = layout.labels
        made = dict(zip(ids.made, above.tolist(), strict=True))
        for id, label in made.items():
            if id in place:
                labels[place[id]] = label
            elif unknown_ids.get(id, label) != label:
                return None
        known = hints.labels > 0
        if not np.array_equal(labels[known], hints.labels[known]):
            return None
        return _Trial(labels=labels, made=made, certain=layout.certain)

    def agrees(self, trial: _Trial, changed: bytes | None) -> bool:
        """Whether the elements hold what the log says that they must.

        Args:
            changed: the only id with another vector than when this was last asked.
        """
        if not trial.checked or (trial.wrong is not None and trial.wrong == changed):
            newest_first = reversed(self.ids.vectors)
            trial.wrong = next((id for id in newest_first if not self._holds(trial, id)), None)
            trial.checked = True
        elif trial.wrong is None and changed is not None and not self._holds(trial, changed):
            trial.wrong = changed
        return trial.wrong is None

    def _holds(self, trial: _Trial, id: bytes) -> bool:
        label = self._label(trial, id)
        return not label or id not in self.ids.vectors or self._agree(label, self.ids.vectors[id])

    def _agree(self, label: int, seq_id: int) -> bool:
        pair = label, seq_id
        if pair not in self.seen:
            self.seen[pair] = self.hints.holds(*pair)
        return self.seen[pair]

    def _label(self, trial: _Trial, id: bytes) -> int:
        """0 where it cannot be told."""
        if id in trial.made:
            return trial.made[id]
        return int(trial.labels[self.place[id]]) if id in self.place else 0

    def is_proof(self, trial: _Trial) -> bool:
        """Whether the files are not from before the flush, as pages can be that got lost.

        A vector that was written since is proof, and so is the record that the flush's last
        operation made.
        """
        flushed, made = self.hints.flushed, self.hints.made
        return trial.certain and any(
            self._label(trial, id)
            for id, seq_id in reversed(self.ids.vectors.items())
            if seq_id > flushed or (id == made and seq_id == flushed)
        )


def find_order(
    records: Records, rows: Sequence[WalRow], live: Labels, hints: Hints
) -> Order | None:
    """Give each record its label by the order of the records at the moment of the folder.

    That moment is not known, so each one since the flush is tried: the ids of the flush first, then
    those after each row of the log. One that fits has as many ids as there are live labels, and the
    elements hold the vectors that the log wrote up to then.

    It is proven if at least one of these vectors is not older than the flush, and no other moment
    that fits gives a record another label. Else it is an inference, and no label that another
    moment contradicts is part of it.

    Args:
        records: the n records after replay.
        rows: all that the log has of the collection, in order.
        live: uint64, ascending: the labels of live elements.
        hints: what is known besides the order.
    """
    pending = with_operations([row for row in rows if row.seq_id > hints.flushed], records)
    if pending is None:
        return None
    search = _search_from_the_flush(records, rows, pending, live, hints)
    fitting = _Fitting.none(len(records.ids))
    trial: _Trial | None = None
    tried, ids_changed = 0, True
    for row in (None, *pending):
        if row is not None and search.ids.apply(row):
            trial, ids_changed = None, True
        if not search.fits():
            if trial is not None:  # it may fit again, with other vectors
                trial.checked = False
            continue
        if ids_changed:
            tried += 1
            if tried > MOST_LAYOUTS or (tried > 1 and tried * len(live) > MOST_LAID_OUT):
                return None
            trial, ids_changed = search.try_ids(), False
        if trial is not None and search.agrees(trial, row.id if row else None):
            as_of = row.seq_id if row else hints.flushed
            fitting.add(trial, (len(search.ids.vectors), as_of, search.is_proof(trial)))
    return fitting.order()


@dataclass(slots=True)
class _Fitting:
    """What the moments that fit say together.

    Attributes:
        labels: uint64 (n,): the label of each record by the first that tells it, else 0.
        disputed: bool (n,): another moment gives the record another label.
        best: of the moment that explains the most vectors, the last one of these: how many, its
            last operation, and whether it is proven. None where no moment fits.
    """

    labels: Labels
    disputed: Flags
    best: tuple[int, int, bool] | None = None

    @classmethod
    def none(cls, count: int) -> _Fitting:
        """No moment yet, of so many records."""
        return cls(np.zeros(count, np.uint64), np.zeros(count, bool))

    def add(self, trial: _Trial, found: tuple[int, int, bool]) -> None:
        """Take a moment in; one with the ids of the moment before has its labels, too."""
        if not trial.taken:
            both_tell = (self.labels > 0) & (trial.labels > 0)
            self.disputed |= both_tell & (self.labels != trial.labels)
            self.labels = np.where(self.labels > 0, self.labels, trial.labels)
            trial.taken = True
        self.best = max(self.best, found) if self.best else found

    def order(self) -> Order | None:
        """The labels that no moment contradicts; None where no moment fits."""
        if self.best is None:
            return None
        _, as_of, proof = self.best
        labels = np.where(self.disputed, np.uint64(0), self.labels)
        return Order(as_of, labels, proof and not self.disputed.any())


def _search_from_the_flush(
    records: Records,
    rows: Sequence[WalRow],
    pending: Sequence[WalRow],
    live: Labels,
    hints: Hints,
) -> _Search:
    """A search that stands at the flush.

    Args:
        pending: the rows after the flush, each with an operation.
    """
    ids = _at_the_flush(records, pending, hints.flushed)
    ids.vectors.update(hints.vectors)
    place = find({row.id for row in rows} | hints.vectors.keys(), records.ids)
    untouched = np.ones(len(records.ids), bool)
    untouched[[place[row.id] for row in pending if row.id in place]] = False
    return _Search(
        records=records,
        hints=hints,
        live=live,
        untouched=np.flatnonzero(untouched),
        place=place,
        ids=ids,
    )


def _at_the_flush(records: Records, pending: Sequence[WalRow], flushed: int) -> _Ids:
    first: dict[bytes, WalRow] = {}
    for row in pending:
        first.setdefault(row.id, row)
    place = find(first, records.ids)
    known = _made_before(records, pending, place, flushed)
    old: dict[bytes, None] = {}
    unplaced: set[bytes] = set()
    deleted = {row.id for row in pending if row.operation == "delete"}
    for id, row in first.items():
        later = id in place and int(records.rowids[place[id]]) > known
        if id in place and not later:
            old[id] = None
        elif row.operation in ("update", "delete") or (row.operation == "upsert" and not later):
            if id in deleted or id not in place:
                unplaced.add(id)
            else:
                old[id] = None
    return _Ids(unplaced=unplaced, old=old, made={}, vectors={})


def _made_before(
    records: Records, pending: Sequence[WalRow], place: Mapping[bytes, int], flushed: int
) -> int:
    """The rowid of the last record that was certainly made before the flush.

    Rows are made in the order of the log: a record that is written later than one with a larger
    rowid is made was there before. Asks which row may have made each record: the first since its
    last delete that makes one where there is none.
    """
    known = int(records.rowids[records.seq_ids <= flushed].max(initial=-1 << 62))
    written: dict[bytes, int] = {}  # the first row that can have made it
    for row in pending:
        match effect_on_record(row, None):
            case Effect.DELETES_IF_THERE:
                written.pop(row.id, None)
            case Effect.CREATES_IF_ABSENT | Effect.CREATES_OR_CHANGES:
                written.setdefault(row.id, row.seq_id)
            case _:
                pass
    made = {int(records.rowids[place[id]]): seq for id, seq in written.items() if id in place}
    least = NEVER
    for rowid in sorted(made, reverse=True):
        if made[rowid] > least:
            return max(known, rowid)
        least = made[rowid]
    return known
