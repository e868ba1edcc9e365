"""What proves that a vector is the record's own?

A record's vector is what its last operation with a vector wrote. The log knows the latest ones; an
element of a segment knows what was true when the segment was written. So all depends on *when*
that was: a label alone proves nothing (a skewed backup holds vectors from before an update), and
after two writers not even whose vector it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hnswcheck.formats.strings import Flags, Ints, find
from hnswcheck.store.records import Records
from hnswcheck.store.wal import WalRow

#: Above every seq_id.
NEVER = np.iinfo(np.int64).max

Grades = NDArray[np.uint8]


class Grade(IntEnum):
    """How good the best vector of a record is; of two, the larger is the better one."""

    LOST = 0  # it is nowhere
    SUSPECT = 1  # an element of several histories, with a delete mark, or beside damage
    OUTDATED = 2  # from before the last operation on the record
    UNCONFIRMED = 3  # nothing speaks for it or against it
    INFERRED = 4  # by an id map that was put together from the order of the records
    PROVEN = 5


@dataclass(frozen=True, slots=True)
class LogProof:
    """What the log says of each record.

    Attributes:
        seq_ids: int64 (n,): the row that holds its last vector; 0 where the log has none.
        grades: uint8 (n,): how sure it is that this row took effect.
        made: int64 (n,): the operation that made the record; 0 where that is not known.
        ever: bool (n,): no record had this id before.
        obscure: bool (n,): a row that nobody can read may have written its last vector.
    """

    seq_ids: Ints
    grades: Grades
    made: Ints
    ever: Flags
    obscure: Flags


@dataclass(slots=True)
class _History:
    exists: bool | None
    vector: int = 0
    sure: bool = True
    made: int = 0
    obscure: bool = False


def read_log(records: Records, rows: Sequence[WalRow], accounted: int, complete: bool) -> LogProof:
    """Follow every record through the log.

    An add of an id that exists has no effect, so an add counts for sure only where the id is known
    not to have been there: the log was never purged; or it was the last operation on the record,
    and sqlite took it; or a record that was made earlier was made by a row of this log already.
    It had none where the last operation on the record was before it.

    Args:
        rows: all that the log has of the collection, in order.
        accounted: nothing up to this operation was updated or deleted, but what the log shows.
        complete: the log was never purged.
    """
    at = find({row.id for row in rows}, records.ids)
    first: dict[bytes, WalRow] = {}
    for row in rows:
        first.setdefault(row.id, row)
    by_log = [
        int(records.rowids[place])
        for record, place in at.items()
        if first[record].operation == "add" and records.seq_ids[place] == first[record].seq_id
    ]
    since_log = min(by_log, default=NEVER)
    histories: dict[bytes, _History] = {}
    for row in rows:
        history = histories.get(row.id)
        if history is None:
            place = at.get(row.id)
            fresh = complete or (place is not None and int(records.rowids[place]) >= since_log)
            history = histories[row.id] = _History(False if fresh else None)
            if place is not None and int(records.seq_ids[place]) < row.seq_id:
                history.exists = True
        _follow(history, row)
    seq_ids, made = np.zeros(len(records.ids), np.int64), np.zeros(len(records.ids), np.int64)
    grades: Grades = np.zeros(len(records.ids), np.uint8)
    obscure = np.zeros(len(records.ids), bool)
    untouched = records.seq_ids <= accounted
    untouched[list(at.values())] = False
    made[untouched] = records.seq_ids[untouched]
    for record, place in at.items():
        history = histories[record]
        made[place] = history.made
        obscure[place] = history.obscure
        if history.vector:
            seq_ids[place] = history.vector
            grades[place] = Grade.PROVEN if history.sure else Grade.UNCONFIRMED
    return LogProof(seq_ids, grades, made, untouched, obscure)


def _follow(history: _History, row: WalRow) -> None:
    has_vector = row.vector_bytes is not None
    if row.obscure:
        history.exists, history.vector, history.sure, history.made = None, 0, True, 0
        history.obscure = True
        return
    match row.operation:
        case "add" if history.exists is not True:
            history.vector, history.sure = row.seq_id, history.exists is False
            history.made = row.seq_id if history.exists is False else 0
            history.exists = True
        case "upsert":
            if history.exists is False:
                history.made = row.seq_id
            history.exists = True
            if has_vector:
                history.vector, history.sure = row.seq_id, True
        case "update" if history.exists is not False and has_vector:
            history.vector, history.sure = row.seq_id, True
        case "delete":
            history.exists, history.vector, history.sure, history.made = False, 0, True, 0
            history.obscure = False
        case _:
            pass


@dataclass(frozen=True, slots=True)
class FolderProof:
    """What is known of a folder, laid beside the records.

    Attributes:
        element: int64 (n,): each record's element, -1 where it has none.
        tombstoned: bool (n,): that element is marked deleted.
        doubtful: bool (n,): damage that changed labels may have reached it.
        damaged: bool (n,): its vector cannot be what Chroma stored.
        scaleless: bool (n,): only the direction of its vector is known, under cosine.
        mapped: bool (n,): the folder's id map names the record.
        whole_map: the id map was read to its end, so a record that it lacks was made later.
        strangers: it names ids that neither sqlite nor the log knows: deleted since, or, where the
            folder is newer than sqlite, not made yet.
        mixed: elements or labels of several histories.
        belongs: the log has the vector of one of its elements, or all counts agree.
        moment: the operation up to which it reflects all, and none after; None if not known.
        covered: the log still has all that came after.
        after: an operation that it certainly reflects; 0 if none is known.
        inferred: bool (n,): that this element is the record's was only inferred.
    """

    element: Ints
    tombstoned: Flags
    doubtful: Flags
    damaged: Flags
    scaleless: Flags
    mapped: Flags
    whole_map: bool
    strangers: bool
    mixed: bool
    belongs: bool
    moment: int | None
    covered: bool
    after: int
    inferred: Flags


def judge_folder(folder: FolderProof, records: Records, log: LogProof) -> Grades:
    """uint8 (n,): how good the folder's vector of each record is."""
    there = (folder.element >= 0) & ~folder.damaged
    grades: Grades = np.zeros(len(there), np.uint8)
    if folder.mixed:
        grades[there] = Grade.SUSPECT
        return grades
    if folder.moment is not None:
        grades[there] = Grade.OUTDATED
        current = records.seq_ids <= folder.moment
        grades[there & (current | (folder.covered & ~log.obscure))] = Grade.PROVEN
    else:
        grades[there] = Grade.UNCONFIRMED
        # The folder is older than every record that was made after it ...
        lacking = ~folder.mapped & folder.whole_map
        later = lacking & ~begun_anew(folder.mapped, records)
        if folder.strangers and not later.any():  # or it is newer than sqlite
            return grades
        before = int(made_by(records)[later].min(initial=NEVER))
        # ... and no older than any that it has, unless that was made again since. In one history.
        after = int(made_from(records, log)[there].max(initial=0))
        if after >= before:
            grades[there] = Grade.SUSPECT
            return grades
        grades[there & (records.seq_ids >= before)] = Grade.OUTDATED
        if folder.belongs:
            sure = (records.seq_ids <= folder.after) | only_made(records, log)
            grades[there & sure] = Grade.PROVEN
    grades[there & folder.scaleless & (grades == Grade.PROVEN)] = Grade.UNCONFIRMED
    grades[folder.inferred & (grades == Grade.PROVEN)] = Grade.INFERRED
    grades[there & (folder.tombstoned | folder.doubtful)] = Grade.SUSPECT
    return grades


def only_made(records: Records, log: LogProof) -> Flags:
    """bool (n,): the operation that made the record is the last one on it."""
    return np.asarray((log.made > 0) & (log.made == records.seq_ids))


def made_from(records: Records, log: LogProof) -> Ints:
    """int64 (n,): the operation that made each record is this one or a later one.

    Each operation makes one row at most: so it came as many operations after those that made the
    rows before, and the row with number n was not made before operation n.
    """
    place = np.arange(len(records.rowids))
    numbered = bool((records.rowids <= records.seq_ids).all())  # else somebody else made rows
    floor = np.maximum(log.made, records.rowids) if numbered else log.made
    return np.maximum.accumulate(floor - place) + place


def made_by(records: Records) -> Ints:
    """int64 (n,): the operation that made each record is this one or an earlier one.

    It came as many operations before the last one on any record that was made after it.
    """
    place = np.arange(len(records.rowids))
    return np.minimum.accumulate((records.seq_ids - place)[::-1])[::-1] + place


def begun_anew(mapped: Flags, records: Records) -> Flags:
    """bool (n,): records that an index lacks because it was begun after they were made.

    None if that is not so: whatever it has, was written after all these had been made, and some of
    it was made after them.

    Args:
        mapped: bool (n,): the records that the index has.
    """
    newest = int(np.flatnonzero(mapped)[-1]) if mapped.any() else 0
    older = ~mapped & (np.arange(len(mapped)) < newest)
    if older.any() and made_by(records)[older].max() >= records.seq_ids[mapped].min():
        return np.zeros(len(mapped), bool)
    return older
