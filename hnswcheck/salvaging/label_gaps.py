"""Labels of records by their order, between records whose labels are known.

In 1.x of two ids the one with the larger row has the larger label, and ids only ever go: where as
many labels lie between two known ones as records, each is one's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints, Labels

#: Where labels of deleted ids are among them: so many ways to lay records over labels are tried.
MOST_OFFSETS = 64


@dataclass(frozen=True, slots=True)
class Layout:
    """Records laid over labels.

    Attributes:
        labels: uint64 (n,): 0 where it cannot be told.
        certain: each has the one label that it can have.
    """

    labels: Labels
    certain: bool


def lay_out(rowids: Ints, live: Labels, known: Labels) -> Layout | None:
    """Lay records over labels, of which there are as many or more; None where they contradict.

    Args:
        rowids: int64 (n,), ascending.
        live: uint64, ascending: the labels of these records and of others that are gone.
        known: uint64 (n,): labels that are known, else 0.
    """
    if len(rowids) == len(live):
        fixed = known > 0
        return Layout(live, True) if np.array_equal(live[fixed], known[fixed]) else None
    if not _is_order(known, live):
        return None
    labels, certain = known.copy(), True
    for records, between in _gaps(known, live):
        if len(records) > len(between):
            return None
        if len(records) == len(between):
            labels[records] = between
        elif len(records):
            ends = [at for at in (records[0] - 1, records[-1] + 1) if 0 <= at < len(known)]
            beside = known[ends].astype(np.int64) - rowids[ends]
            labels[records] = _by_offset(rowids[records], between, beside)
            certain = False
    return Layout(labels, certain)


def between_known(known: Labels, live: Labels) -> Labels:
    """uint64 (n,): ``known``, and what lies between as many known ones as there are records.

    That is certain whenever the labels are from: before, more ids were there, and later fewer.
    What follows the last known one is not.

    Args:
        known: uint64 (n,): labels of records in the order of their rows, 0 for unknown ones.
        live: uint64, ascending: labels of live elements, but those known to be no record's.
    """
    if not _is_order(known, live):
        return known
    labels = known.copy()
    *bounded, _ = _gaps(known, live)
    for records, between in bounded:
        if len(records) == len(between):
            labels[records] = between
    return labels


def _is_order(known: Labels, live: Labels) -> bool:
    fixed = known[known > 0]
    return bool((fixed[1:] > fixed[:-1]).all() and np.isin(fixed, live).all())


def _gaps(known: Labels, live: Labels) -> list[tuple[Ints, Labels]]:
    """The records before, between and after those whose labels are known; and the labels there."""
    fixed = np.flatnonzero(known)
    at = np.searchsorted(live, known[fixed])
    starts, ends = np.append(-1, fixed) + 1, np.append(fixed, len(known))
    firsts, lasts = np.append(-1, at) + 1, np.append(at, len(live))
    busy: Flags = (starts < ends) | (firsts < lasts)
    busy[-1] = True
    return [
        (np.arange(start, end), live[first:last])
        for start, end, first, last in zip(
            starts[busy], ends[busy], firsts[busy], lasts[busy], strict=True
        )
    ]


def _by_offset(rowids: Ints, live: Labels, beside: Ints) -> Labels:
    """The labels as far from each other as the rows, if there is one such way; else zeros.

    Every id took one label and one row, so that where no other collection's rows are in between,
    they go side by side; most likely as far apart as next to them.

    Args:
        beside: int64: how far labels are from rows where that is known next to these.
    """
    unknown = np.zeros(len(rowids), np.uint64)
    spare = len(live) - len(rowids)
    if spare >= MOST_OFFSETS:
        return unknown
    labels = live.astype(np.int64)
    offsets = labels[: spare + 1] - rowids[0]
    fitting = [offset for offset in offsets.tolist() if np.isin(rowids + offset, labels).all()]
    likely = [offset for offset in fitting if offset in beside]
    best = likely if len(likely) == 1 else fitting
    return (rowids + best[0]).astype(np.uint64) if len(best) == 1 else unknown
