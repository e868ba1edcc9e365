"""One id map from the two maps of its file.

A file has each pair twice: what damage changed by id is still there by label, and the other way
round. What both maps have is proven; where they contradict each other, a pair is disputed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints
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
    """The pairs of both maps, and which of these are disputed.

    What both maps have is certain, as damage does not write the same pair twice: so no other pair
    has its id or its label. Of the other pairs of the second map, those are taken that no pair of
    the first contradicts, which means that it has the same id or the same label; and those of
    records that only pairs of no record contradict. Where both are of records, the pair of the
    first map stays, disputed. So is a label that two pairs have in the end.

    Args:
        forward: f pairs, by id.
        backward: b pairs, by label.
    """
    same_id = positions(backward.ids, forward.ids)
    same_label = find_labels(forward.labels.astype(np.uint64), backward.labels.astype(np.uint64))
    if _say_the_same(forward, backward, same_label):
        return forward, np.zeros(len(forward.ids), bool)
    chosen = _choice(forward, backward, same_id, same_label, records)
    keep, new = np.flatnonzero(chosen.keep), np.flatnonzero(chosen.take)
    labels = np.concatenate([forward.labels[keep], backward.labels[new]])
    ids = Strings.concatenated([forward.ids.take(keep), backward.ids.take(new)])
    disputed = np.append(chosen.disputed[keep], np.zeros(len(new), bool))
    twice = repeated_labels(labels.astype(np.uint64)).astype(np.int64)
    return Pairs(ids, labels), disputed | np.isin(labels, twice)


def _say_the_same(forward: Pairs, backward: Pairs, same_label: Ints) -> bool:
    """Whether two maps are inverse to each other, as all that Chroma writes are.

    Args:
        same_label: int64 (b,): the pair of the first map with the label of each of the second, or
            -1.
    """
    if len(forward.ids) != len(backward.ids) or (same_label < 0).any():
        return False
    if len(np.unique(same_label)) < len(same_label):
        return False
    return np.array_equal(forward.ids.hashes[same_label], backward.ids.hashes)


class _Choice(NamedTuple):
    """Which pairs of two maps become one.

    Attributes:
        keep: bool (f,): pairs of the first map.
        take: bool (b,): pairs of the second map that the first has not.
        disputed: bool (f,): kept, although the second map says otherwise of a record.
    """

    keep: Flags
    take: Flags
    disputed: Flags


def _choice(
    forward: Pairs, backward: Pairs, same_id: Ints, same_label: Ints, records: Strings
) -> _Choice:
    """Decide between pairs that contradict each other; :func:`_merged` says how.

    Args:
        same_id: int64 (b,): the pair of the first map with the id of each of the second, or -1.
        same_label: int64 (b,): the same by label.
    """
    both = same_id >= 0
    both[both] = forward.labels[same_id[both]] == backward.labels[both]
    certain = np.zeros(len(forward.ids), bool)
    certain[same_id[both]] = True
    open_pairs = ~certain & ~np.isin(forward.labels, forward.labels[certain])
    open_of_records = open_pairs & (positions(forward.ids, records) >= 0)

    def contradicted(by: Flags) -> Flags:
        return flagged(by, same_id) | flagged(by, same_label)

    others = ~both & ~contradicted(certain)
    of_records = positions(backward.ids, records) >= 0
    against_records = contradicted(open_of_records)
    take = others & (~contradicted(open_pairs) | (of_records & ~against_records))
    disputing = others & of_records & against_records
    keep, disputed = certain | open_pairs, np.zeros(len(forward.ids), bool)
    for same in (same_id, same_label):
        replaced = same[take & (same >= 0)]
        keep[replaced] = certain[replaced]
        disputed[same[disputing & (same >= 0)]] = True
    return _Choice(keep, take, disputed)
