"""What proves that a vector is the record's own?

A record's vector is what its last operation with a vector wrote. The log knows the latest ones; an
element of a segment knows what was true when the segment was written. So all depends on *when*
that was: a label alone proves nothing (a skewed backup holds vectors from before an update), and
after two writers not even whose vector it is.
"""

from __future__ import annotations

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.salvaging.folder_assignment import FolderProof
from hnswcheck.salvaging.grade import NEVER, Grade, Grades
from hnswcheck.salvaging.log_evidence import LogProof
from hnswcheck.store.records import Records


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
