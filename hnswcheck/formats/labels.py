"""Looking up labels among labels, a million at a time."""

from __future__ import annotations

import numpy as np

from hnswcheck.formats.arrays import Ints, Labels

#: Labels are handed out one by one, so a table by label is hardly longer than the column; where
#: damage made it longer than this times the column, sorting takes over.
SPARSE = 4

SPARSE_FIXED = 1 << 16


def find_labels(labels: Labels, wanted: Labels) -> Ints:
    """int64, shape of ``wanted``: where each stands in ``labels``, -1 if nowhere.

    Of a label that comes several times, the last place: so does hnswlib's loader.
    """
    if not len(labels) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    top = int(labels.max())
    if top < SPARSE * len(labels) + SPARSE_FIXED:
        table = np.full(top + 2, -1, np.int64)
        table[labels] = np.arange(len(labels))
        return table[np.minimum(wanted, np.uint64(top + 1))]
    order = np.argsort(labels, kind="stable")
    at = np.searchsorted(labels, wanted, side="right", sorter=order) - 1
    place = order[np.maximum(at, 0)]
    return np.where(labels[place] == wanted, place, -1)


def repeated_labels(labels: Labels) -> Labels:
    """uint64, ascending: every label that comes more than once."""
    place = find_labels(labels, labels)
    return np.unique(labels[place != np.arange(len(labels))])
