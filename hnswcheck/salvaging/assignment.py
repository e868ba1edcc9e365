"""Whose the elements of a folder are: all ways to tell, in the order in which they are tried."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnswcheck.formats.arrays import Flags
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.pickle_tokens import Damage
from hnswcheck.formats.strings import positions
from hnswcheck.salvaging.by_id_map import by_id_map, completed
from hnswcheck.salvaging.by_insertion_number import by_number
from hnswcheck.salvaging.by_order import by_order, despite, the_order
from hnswcheck.salvaging.damaged_segment import better_half
from hnswcheck.salvaging.evidence import Evidence
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.label_order import Order
from hnswcheck.salvaging.merge_maps import reconciled
from hnswcheck.store.releases import labels_follow_rows


def assignments_of(evidence: Evidence) -> Iterator[FolderAssignment]:
    """Say whose the elements of a folder are, in each way that says something, until one is sure.

    There are three ways. The order of the records is asked where the id map is gone, cut, or cannot
    be what Chroma wrote. The id map is asked next, unless the order is proven. Where neither is
    certain, the numbers of the records are asked, which need nothing else where nothing was ever
    updated or deleted.
    """
    id_map, was_cut = _what_is_named(evidence)
    names_some = id_map is not None and len(id_map.id_to_label.ids) > 0
    order = None
    if evidence.is_own and (id_map is None or id_map.problem is not None):
        order = _order_around(evidence, id_map if was_cut else None)
    certain = False
    if order is not None and (order.sure or was_cut or not names_some):
        certain = order.sure
        yield by_order(evidence, order)
    if id_map is not None and names_some and not certain:
        disputed = np.zeros(len(id_map.id_to_label.ids), bool)
        if id_map.problem is None:
            elements = evidence.folder.elements
            id_map, disputed = reconciled(id_map, elements, evidence.records.ids)
        assignment = _by_id_map_or_despite_it(evidence, id_map, disputed)
        certain = assignment.as_of is not None
        yield assignment
    if not certain and (numbered := by_number(evidence, id_map)) is not None:
        yield numbered


def _what_is_named(evidence: Evidence) -> tuple[IdMap | None, bool]:
    """The better half of the id map, and whether it was cut: then what is left of it is right.

    A cut one of 1.x gets the labels that can only be those of records in between.
    """
    if evidence.id_map is None:
        return None, False
    id_map = better_half(evidence.id_map)
    was_cut = id_map.problem is not None and id_map.problem.damage is Damage.TRUNCATED
    if was_cut and labels_follow_rows(id_map.shape):
        id_map = completed(evidence, id_map)
    return id_map, was_cut


def _order_around(evidence: Evidence, named: IdMap | None) -> Order | None:
    """The order of the records, which has to keep what a cut id map still names."""
    known = np.zeros(len(evidence.records.ids), np.uint64)
    unknown_ids: dict[bytes, int] = {}
    if named is not None:
        pairs = named.id_to_label
        at = positions(pairs.ids, evidence.records.ids)
        known[at[at >= 0]] = pairs.labels[at >= 0].astype(np.uint64)
        gone = np.flatnonzero(at < 0).tolist()
        unknown_ids = {pairs.ids[i]: int(pairs.labels[i]) for i in gone}
    return the_order(evidence, known, unknown_ids)


def _by_id_map_or_despite_it(
    evidence: Evidence, id_map: IdMap, disputed: Flags
) -> FolderAssignment:
    """What the id map says, or the order where that is proven and only a few pairs speak against.

    Args:
        disputed: bool (pairs,): the file contradicts itself in these.
    """
    assignment = by_id_map(evidence, id_map, disputed)
    unsure = assignment.as_of is None or assignment.disputed.any()
    if evidence.is_own and unsure and id_map.problem is None:
        return despite(evidence, id_map) or assignment
    return assignment
