"""The grade of each vector of a folder, and the reason: the one place that decides.

A record's vector is what its last operation with a vector wrote. The log knows the latest ones; an
element of a folder shows what was true when the folder was written. So all depends on when that
was. A label alone proves nothing: a skewed backup holds vectors from before an update, and after
two writers a label may be another record's.
"""

from __future__ import annotations

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.grade import NEVER, Grade
from hnswcheck.salvaging.judged import Judged
from hnswcheck.salvaging.log_evidence import LogEvidence
from hnswcheck.salvaging.reason import Reason
from hnswcheck.store.records import Records


def judge_folder(folder: FolderAssignment, records: Records, log: LogEvidence) -> Judged:
    """How good the folder's vector of each record is, and why.

    Either the moment of the folder is known, which decides about each record; or it is bounded by
    what the folder has and what it lacks. Then what speaks against single elements takes proof
    away. Of several histories no label proves anything.
    """
    has_vector = (folder.element >= 0) & ~folder.damaged
    judged = Judged.nowhere(len(has_vector))
    judged.give((folder.element >= 0) & folder.damaged, Reason.VECTOR_DAMAGED)
    if folder.mixed:
        judged.give(has_vector, Reason.HISTORIES_MIXED)
        judged.give(has_vector & folder.label_twice, Reason.LABEL_TWICE)
        return judged
    if folder.as_of is not None:
        _judge_at(folder.as_of, judged, has_vector, folder, records, log)
    elif not _judge_by_bounds(judged, has_vector, folder, records, log):
        return judged
    proven = judged.grades == Grade.PROVEN
    judged.give(proven & folder.undone, Reason.CALL_UNDONE)
    proven = judged.grades == Grade.PROVEN
    judged.give(proven & folder.guessed, Reason.BY_ORDER)
    judged.give(proven & folder.disputed, Reason.ID_MAP_DISPUTED)
    judged.give(proven & folder.scaleless, Reason.LENGTH_UNKNOWN)
    judged.give(proven & _changed_since(folder, records, log), Reason.FILES_DIFFER)
    judged.give(has_vector & folder.doubtful, Reason.DAMAGE_NEAR)
    judged.give(has_vector & folder.tombstoned, Reason.DELETE_MARK)
    judged.give(has_vector & folder.doubtful & folder.label_twice, Reason.LABEL_TWICE)
    return judged


def _judge_at(
    as_of: int,
    judged: Judged,
    has_vector: Flags,
    folder: FolderAssignment,
    records: Records,
    log: LogEvidence,
) -> None:
    """Judge by the moment of the folder: it has the vector of what was not written since.

    Where the log has all that came since, its own vectors are the newer ones, and what it wrote no
    vector of still has that of the folder; unless a row that nobody can read wrote one.

    Args:
        as_of: the last operation that the folder reflects.
        has_vector: bool (n,): the folder has a vector of the record that can be.
    """
    judged.give(has_vector, Reason.WRITTEN_SINCE)
    current = records.seq_ids <= as_of
    sure = Reason.ORDER_CONFIRMED if folder.by_order else Reason.IDS_AGREE
    judged.give(has_vector & (current | (folder.covered & ~log.obscure)), sure)


def _judge_by_bounds(
    judged: Judged,
    has_vector: Flags,
    folder: FolderAssignment,
    records: Records,
    log: LogEvidence,
) -> bool:
    """Judge a folder of an unknown moment by the operations before and after which it was written.

    It was written before every record that it lacks was made, unless it was begun anew; and not
    before any record that it has, in one history. Ids that sqlite lacks may be of later records: if
    the folder lacks none either, it may be newer than sqlite, and hold later vectors.

    Args:
        has_vector: bool (n,): the folder has a vector of the record that can be.

    Returns:
        whether single elements can still be judged.
    """
    judged.give(has_vector, Reason.NO_EVIDENCE)
    lacking = ~folder.mapped & folder.whole_map
    made_later = lacking & ~begun_anew(folder.mapped, records)
    if folder.names_unknown_ids and not made_later.any():
        judged.give(has_vector, Reason.FOLDER_NEWER)
        return False
    before = int(made_by(records)[made_later].min(initial=NEVER))
    not_before = int(made_from(records, log)[has_vector].max(initial=0))
    if not_before >= before:
        judged.give(has_vector, Reason.HISTORIES_MIXED)
        return False
    judged.give(has_vector & (records.seq_ids >= before), Reason.WRITTEN_SINCE)
    if folder.belongs:
        judged.give(has_vector & (records.seq_ids <= folder.after), Reason.FOLDER_NOT_OLDER)
        judged.give(has_vector & only_made(records, log), Reason.NEVER_CHANGED)
    return True


def _changed_since(folder: FolderAssignment, records: Records, log: LogEvidence) -> Flags:
    """bool (n,): the record was there at the earlier flush that files are of, and changed after it.

    That flush came after the elements that it had were made, and what the folder has beyond them is
    of the later one.
    """
    early = (folder.element >= 0) & (folder.element < folder.earlier)
    made = made_from(records, log)
    changed = records.seq_ids > made[early].max(initial=0)
    return np.asarray(early & changed & (made < records.seq_ids))


def only_made(records: Records, log: LogEvidence) -> Flags:
    """bool (n,): the operation that made the record is the last one on it."""
    return np.asarray((log.made > 0) & (log.made == records.seq_ids))


def made_from(records: Records, log: LogEvidence) -> Ints:
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
