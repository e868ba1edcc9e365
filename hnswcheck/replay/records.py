"""What replaying the log does to the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from hnswcheck.formats.strings import Strings, find
from hnswcheck.replay.effects import Effect, effect_on_record
from hnswcheck.report import Pending
from hnswcheck.store.records import Records
from hnswcheck.store.wal import WalRow


def replay_records(rows: Sequence[WalRow], watermark: int, records: Strings) -> Strings:
    """The ids that sqlite has once METADATA has applied the rows past its watermark.

    Asks which ids there are, and nothing else.
    """
    unseen = [row for row in rows if row.seq_id > watermark]
    if not unseen:
        return records
    ids = dict.fromkeys(records)
    for row in unseen:
        match effect_on_record(row, row.id in ids):
            case Effect.CREATES:
                ids[row.id] = None
            case Effect.DELETES:
                del ids[row.id]
            case _:
                pass
    return Strings.of(ids)


def count_pending(rows: Sequence[WalRow], start: int) -> Pending:
    """Rows past the replay start, by operation."""
    counts = Counter(row.operation for row in rows if row.seq_id > start)
    return Pending(counts["add"], counts["update"], counts["upsert"], counts["delete"])


def records_after_replay(records: Records, pending: Sequence[WalRow]) -> Records:
    """The records once METADATA has applied these rows.

    Asks which ids there are, and which row was the last on each. A record that is deleted and made
    again is a new one, with a rowid above all others.
    """
    if not pending:
        return records
    known = find((row.id for row in pending), records.ids)
    seq_ids = records.seq_ids.copy()
    gone: set[int] = set()
    made: dict[bytes, int] = {}
    for row in pending:
        place = known.get(row.id)
        exists = row.id in made or (place is not None and place not in gone)
        match effect_on_record(row, exists):
            case Effect.DELETES:
                if made.pop(row.id, None) is None and place is not None:
                    gone.add(place)
            case Effect.CREATES:
                made[row.id] = row.seq_id
            case Effect.CHANGES if row.id in made:
                made[row.id] = row.seq_id
            case Effect.CHANGES if place is not None:
                seq_ids[place] = row.seq_id
            case _:
                pass
    stays = np.ones(len(records.ids), bool)
    stays[list(gone)] = False
    stay = np.flatnonzero(stays)
    last = int(records.rowids.max(initial=0))
    return Records(
        Strings.concatenated([records.ids.take(stay), Strings.of(made)]),
        np.concatenate([records.rowids[stay], last + 1 + np.arange(len(made))]),
        np.concatenate([seq_ids[stay], np.array(list(made.values()), np.int64)]),
    )
