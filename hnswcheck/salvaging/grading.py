"""What proves that a vector is the record's own?

A record's vector is what its last operation with a vector wrote. The log knows the latest ones; an
element of a segment knows what was true when the segment was written. So all depends on *when*
that was: a label alone proves nothing (a skewed backup holds vectors from before an update), and
after two writers not even whose vector it is.
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
    """How good the folder's vector of each record is, and why."""
    there = (folder.element >= 0) & ~folder.damaged
    judged = Judged.nowhere(len(there))
    judged.give((folder.element >= 0) & folder.damaged, Reason.VECTOR_DAMAGED)
    if folder.mixed:
        judged.give(there, Reason.HISTORIES_MIXED)
        judged.give(there & folder.label_twice, Reason.LABEL_TWICE)
        return judged
    if folder.as_of is not None:
        current = records.seq_ids <= folder.as_of
        judged.give(there, Reason.WRITTEN_SINCE)
        sure = Reason.ORDER_CONFIRMED if folder.by_order else Reason.IDS_AGREE
        judged.give(there & (current | (folder.covered & ~log.obscure)), sure)
    else:
        judged.give(there, Reason.NO_EVIDENCE)
        # The folder is older than every record that was made after it ...
        lacking = ~folder.mapped & folder.whole_map
        later = lacking & ~begun_anew(folder.mapped, records)
        if folder.names_unknown_ids and not later.any():  # or it is newer than sqlite
            judged.give(there, Reason.FOLDER_NEWER)
            return judged
        before = int(made_by(records)[later].min(initial=NEVER))
        # ... and no older than any that it has, unless that was made again since. In one history.
        after = int(made_from(records, log)[there].max(initial=0))
        if after >= before:
            judged.give(there, Reason.HISTORIES_MIXED)
            return judged
        judged.give(there & (records.seq_ids >= before), Reason.WRITTEN_SINCE)
        if folder.belongs:
            judged.give(there & (records.seq_ids <= folder.after), Reason.FOLDER_NOT_OLDER)
            judged.give(there & only_made(records, log), Reason.NEVER_CHANGED)
    proven = judged.grades == Grade.PROVEN
    judged.give(proven & folder.scaleless, Reason.LENGTH_UNKNOWN)
    judged.give(proven & ~folder.scaleless & folder.guessed, Reason.BY_ORDER)
    judged.give(proven & ~folder.scaleless & folder.disputed, Reason.ID_MAP_DISPUTED)
    judged.give(there & folder.doubtful, Reason.DAMAGE_NEAR)
    judged.give(there & folder.tombstoned, Reason.DELETE_MARK)
    judged.give(there & folder.doubtful & folder.label_twice, Reason.LABEL_TWICE)
    return judged


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
