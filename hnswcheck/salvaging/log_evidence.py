"""What the log proves of each record's vector.

The last row with a vector is the record's, if it took effect. It did unless it is an add of an id
that existed, or an update of one that did not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.formats.strings import find
from hnswcheck.replay.effects import Effect, effect_on_record
from hnswcheck.salvaging.grade import NEVER, Grades
from hnswcheck.salvaging.judged import Judged, Reasons
from hnswcheck.salvaging.reason import Reason
from hnswcheck.store.records import Records
from hnswcheck.store.wal import WalRow


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEvidence:
    """What the log says of each record.

    Attributes:
        seq_ids: int64 (n,): the row that holds its last vector; 0 where the log has none.
        grades: uint8 (n,): how sure it is that this row took effect.
        reasons: uint8 (n,): why, each a :class:`Reason`.
        made: int64 (n,): the operation that made the record; 0 where that is not known.
        ever: bool (n,): no record had this id before.
        obscure: bool (n,): a row that nobody can read may have written its last vector.
    """

    seq_ids: Ints
    grades: Grades
    reasons: Reasons
    made: Ints
    ever: Flags
    obscure: Flags


@dataclass(slots=True, kw_only=True)
class _History:
    exists: bool | None
    vector: int = 0
    sure: bool = True
    made: int = 0
    obscure: bool = False


class Known(NamedTuple):
    """Which ids had a record before some row of the log.

    Attributes:
        since: the number of that row.
        exists: of the ids of all rows from there on; None where that is not known.
    """

    since: int
    exists: Mapping[bytes, bool | None]


def ids_before(rows: Sequence[WalRow], start: int, stored: Records) -> Known:
    """Which ids had a record before the rows that METADATA applies, at last or once more.

    Args:
        rows: all that the log has of the collection, in order.
        start: METADATA's watermark.
        stored: the records, before replay.
    """
    due = [row for row in rows if row.seq_id > start]
    place = find((row.id for row in due), stored.ids)
    exists: dict[bytes, bool | None] = {row.id: row.id in place for row in due}
    applied = {id for id, at in place.items() if stored.seq_ids[at] > start}
    if len(applied):  # a part of them has been applied
        made = {(row.seq_id, row.id) for row in due if row.operation == "add"}
        deleted = {row.id for row in due if row.operation == "delete"}
        for id in applied:
            exists[id] = False if (int(stored.seq_ids[place[id]]), id) in made else None
        exists |= dict.fromkeys(deleted - place.keys())
    return Known(start + 1, exists)


def read_log(
    records: Records, rows: Sequence[WalRow], accounted: int, complete: bool, known: Known
) -> LogEvidence:
    """Follow every record through the log.

    An add of an id that exists has no effect, so an add counts for sure only where the id is known
    not to have been there: the log was never purged; or it was the last operation on the record,
    and sqlite took it; or a record that was made earlier was made by a row of this log already.
    It had none where the last operation on the record was before it.

    Args:
        rows: all that the log has of the collection, in order, as
            :func:`hnswcheck.store.wal.legible` has them.
        accounted: nothing up to this operation was updated or deleted, but what the log shows.
        complete: the log was never purged.
        known: which ids have a record before METADATA applies the rest of the log.
    """
    since_known: set[bytes] = set()
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
        if known.since <= row.seq_id and row.id not in since_known:
            since_known.add(row.id)
            history = histories[row.id] = history or _History(exists=None)
            history.exists = known.exists[row.id]
        elif history is None:
            place = at.get(row.id)
            fresh = complete or (place is not None and int(records.rowids[place]) >= since_log)
            history = histories[row.id] = _History(exists=False if fresh else None)
            if place is not None and int(records.seq_ids[place]) < row.seq_id:
                history.exists = True
        _follow(history, row)
    seq_ids, made = np.zeros(len(records.ids), np.int64), np.zeros(len(records.ids), np.int64)
    judged = Judged.nowhere(len(records.ids))
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
            judged.give(place, Reason.IN_LOG if history.sure else Reason.ADD_UNCERTAIN)
    return LogEvidence(
        seq_ids=seq_ids,
        grades=judged.grades,
        reasons=judged.reasons,
        made=made,
        ever=untouched,
        obscure=obscure,
    )


def _follow(history: _History, row: WalRow) -> None:
    """Go on by one row.

    Asks of the records, as sqlite can tell whether it took a row: an add of one that is there
    changes nothing, whatever an index of 0.4 made of it. A row that nobody can read takes away all
    that was known of its id, and the next row that writes its vector is sure again.
    """
    if row.obscure:
        history.exists, history.vector, history.sure, history.made = None, 0, True, 0
        history.obscure = True
        return
    match effect_on_record(row, history.exists):
        case Effect.CREATES:
            history.exists, history.vector, history.sure = True, row.seq_id, True
            history.made = row.seq_id
        case Effect.CREATES_IF_ABSENT:
            history.exists, history.vector, history.sure = True, row.seq_id, False
            history.made = 0
        case Effect.CREATES_OR_CHANGES:
            history.exists, history.vector, history.sure = True, row.seq_id, True
        case Effect.CHANGES | Effect.CHANGES_IF_THERE if row.vector_bytes is not None:
            history.vector, history.sure = row.seq_id, True
        case Effect.DELETES | Effect.DELETES_IF_THERE:
            history.exists, history.vector, history.sure, history.made = False, 0, True, 0
            history.obscure = False
        case _:
            pass
