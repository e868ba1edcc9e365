"""An id map file has every pair twice: what is damaged by id is there by label, and vice versa."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hnswcheck.formats.arrays import Flags
from hnswcheck.formats.id_map import IdMap, Pairs
from hnswcheck.formats.labels import find_labels, repeated_labels
from hnswcheck.formats.level0 import Elements
from hnswcheck.formats.strings import Strings, positions
from hnswcheck.salvaging.evidence import flagged


def reconciled(id_map: IdMap, elements: Elements, records: Strings) -> tuple[IdMap, Flags]:
    """All pairs that the file has, and which of them are disputed.

    If one label cannot be, and one live element has no id, that is its label: an index with as
    many elements as labels were handed out has lost none.

    Returns:
        the id map with these pairs in its first map, and bool (pairs,).
    """
    pairs, disputed = _merged(id_map.id_to_label, id_map.label_to_id, records)
    labels, count = pairs.labels, len(elements.labels)
    wrong = np.flatnonzero((labels < 1) | (labels > count))
    if len(wrong) == 1 and id_map.total_elements_added == count:
        live = elements.labels[~elements.tombstoned]
        nobodys = live[find_labels(labels.astype(np.uint64), live) < 0]
        if len(nobodys) == 1:
            labels, disputed = labels.copy(), disputed.copy()
            labels[wrong], disputed[wrong] = nobodys, True
    return replace(id_map, id_to_label=Pairs(pairs.ids, labels)), disputed


def _merged(forward: Pairs, backward: Pairs, records: Strings) -> tuple[Pairs, Flags]:
    """The pairs of both maps.

    What both have is certain, so that no other pair has its id or its label. Of other pairs that
    contradict each other, that of a record is right if the others are of none; else those of the
    first map stay, disputed.
    """
    by_label = find_labels(forward.labels.astype(np.uint64), backward.labels.astype(np.uint64))
    inverse = len(forward.ids) == len(backward.ids) and (by_label >= 0).all()
    if inverse and np.array_equal(forward.ids.hashes[by_label], backward.ids.hashes):
        return forward, np.zeros(len(forward.ids), bool)
    by_id = positions(backward.ids, forward.ids)
    agreed = by_id >= 0
    agreed[agreed] = forward.labels[by_id[agreed]] == backward.labels[agreed]
    certain = np.zeros(len(forward.ids), bool)
    certain[by_id[agreed]] = True
    left = ~certain & ~np.isin(forward.labels, forward.labels[certain])
    others = ~agreed & ~flagged(certain, by_id)
    recorded = left & (positions(forward.ids, records) >= 0)
    against = flagged(left, by_id) | flagged(left, by_label)
    against_records = flagged(recorded, by_id) | flagged(recorded, by_label)
    of_records = positions(backward.ids, records) >= 0
    taken = others & (~against | (of_records & ~against_records))
    disputing = others & of_records & against_records
    disputed = np.zeros(len(forward.ids), bool)
    for at in (by_id, by_label):
        left[at[taken & (at >= 0)]] = False
        disputed[at[disputing & (at >= 0)]] = True
    keep, new = np.flatnonzero(certain | left), np.flatnonzero(taken)
    labels = np.concatenate([forward.labels[keep], backward.labels[new]])
    disputed = np.append(disputed[keep], np.zeros(len(new), bool))
    disputed |= np.isin(labels, repeated_labels(labels.astype(np.uint64)).astype(np.int64))
    ids = Strings.concatenated([forward.ids.take(keep), backward.ids.take(new)])
    return Pairs(ids, labels), disputed
