"""Where is the vector of each record, before anybody moves anything?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from hnswcheck.disk.strings import Strings, absent
from hnswcheck.disk.wal import WalRow
from hnswcheck.report import Recoverable


class Source(IntEnum):
    LOST = 0
    WAL = 1
    SEGMENT = 2
    SUSPECT = 3
    QUARANTINE = 4


def locate(
    records: Strings,
    in_wal: set[bytes],
    in_segment: Strings | None,
    whole: bool,
    mixed: bool,
    in_quarantine: Iterable[Strings | None],
) -> Recoverable:
    """One source for each record, the best first: WAL, segment, quarantined folders.

    Args:
        records: the records after replay.
        in_wal: ids whose last vector the WAL has.
        in_segment: ids that have an element; None where the segment's files do not tell.
        whole: no other record can have an element; else what is not found is not called lost.
        mixed: elements of several histories: a label proves nothing.
        in_quarantine: ids that have an element, per folder; None for one that does not tell.
    """
    source: NDArray[np.uint8] = np.zeros(len(records), np.uint8)

    def claim(ids: Strings, where: Source) -> None:
        source[~absent(records, ids) & (source == Source.LOST)] = where

    claim(Strings.of(in_wal), Source.WAL)
    if in_segment is not None:
        claim(in_segment, Source.SUSPECT if mixed else Source.SEGMENT)
    quarantine_told = True
    for ids in in_quarantine if (source == Source.LOST).any() else ():
        quarantine_told &= ids is not None
        claim(ids or Strings.of(()), Source.QUARANTINE)
    counts = np.bincount(source, minlength=len(Source)).tolist()
    told = in_segment is not None or not counts[Source.LOST]
    lost_known = not counts[Source.LOST] or (told and whole and quarantine_told)
    return Recoverable(
        counts[Source.SEGMENT] if told else None,
        counts[Source.WAL],
        counts[Source.QUARANTINE] if lost_known or quarantine_told else None,
        counts[Source.SUSPECT] if told else None,
        counts[Source.LOST] if lost_known else None,
    )


def vectors_in(rows: Sequence[WalRow], start: int, indexed: AbstractSet[bytes]) -> set[bytes]:
    """Ids whose last vector that took effect is in ``rows``.

    An add of an id that exists has no effect, nor an update of one that does not.

    Args:
        indexed: ids of the rows that the index had at the replay start.
    """
    exists: dict[bytes, bool] = {}
    has_vector: set[bytes] = set()
    for row in rows:
        known = exists.get(row.id)
        if known is None and row.seq_id > start:
            known = row.id in indexed
        if row.operation == "delete":
            exists[row.id] = False
            has_vector.discard(row.id)
            continue
        no_effect = known is True if row.operation == "add" else known is False
        if row.operation == "upsert":
            no_effect = False
        if no_effect:
            continue
        exists[row.id] = True
        if row.vector_bytes is not None:
            has_vector.add(row.id)
    return has_vector
