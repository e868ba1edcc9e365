"""What a folder proves of the records, by all that it can be read by."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnswcheck.formats.pickle_tokens import Damage
from hnswcheck.formats.strings import positions
from hnswcheck.salvaging.by_id_map import by_id_map, completed
from hnswcheck.salvaging.by_insertion_number import by_number
from hnswcheck.salvaging.by_order import by_order, despite, the_order
from hnswcheck.salvaging.damaged_segment import better_half
from hnswcheck.salvaging.evidence import Evidence
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.merge_maps import reconciled
from hnswcheck.store.releases import labels_follow_rows


def assignments_of(evidence: Evidence) -> Iterator[FolderAssignment]:
    """What the id map proves, or the order of the records; and their numbers, if neither does."""
    known = np.zeros(len(evidence.records.ids), np.uint64)
    unknown_ids: dict[bytes, int] = {}
    id_map = None if evidence.id_map is None else better_half(evidence.id_map)
    cut = False
    if id_map is not None:
        cut = id_map.problem is not None and id_map.problem.damage is Damage.TRUNCATED
        if cut and labels_follow_rows(id_map.shape):
            id_map = completed(evidence, id_map)
        if cut:  # else what is in it may be wrong
            pairs = id_map.id_to_label
            at = positions(pairs.ids, evidence.records.ids)
            known[at[at >= 0]] = pairs.labels[at >= 0].astype(np.uint64)
            gone = np.flatnonzero(at < 0).tolist()
            unknown_ids = {pairs.ids[i]: int(pairs.labels[i]) for i in gone}
    order = None
    if evidence.is_own and (id_map is None or id_map.problem is not None):
        order = the_order(evidence, known, unknown_ids)
    named = id_map is not None and len(id_map.id_to_label.ids) > 0
    certain = False
    if order is not None and (order.sure or cut or not named):
        certain = order.sure
        yield by_order(evidence, order)
    if id_map is not None and named and not certain:
        disputed = np.zeros(len(id_map.id_to_label.ids), bool)
        if id_map.problem is None:
            id_map, disputed = reconciled(id_map, evidence.folder.elements, evidence.records.ids)
        assignment = by_id_map(evidence, id_map, disputed)
        unsure = assignment.as_of is None or assignment.disputed.any()
        if evidence.is_own and unsure and id_map.problem is None:
            assignment = despite(evidence, id_map) or assignment
        certain = assignment.as_of is not None
        yield assignment
    numbered = None if certain else by_number(evidence, id_map)
    if numbered is not None:
        yield numbered
