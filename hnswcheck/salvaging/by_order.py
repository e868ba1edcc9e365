"""Whose the elements are, by the order of the records, in which 1.x hands out labels.

Proves it from the log, whose vectors must be those of the elements that the order gives to their
records. It needs no id map.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hnswcheck.formats.arrays import Flags, Labels
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.labels import find_labels, repeated_labels
from hnswcheck.salvaging.element_damage import EXCEPTIONS
from hnswcheck.salvaging.evidence import Evidence
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.grading import only_made
from hnswcheck.salvaging.label_order import Hints, Order, find_order


def despite(evidence: Evidence, id_map: IdMap) -> FolderAssignment | None:
    """By the order, if the id map says the same but for a few pairs; None if it does not.

    Damage may have changed these, or their records in sqlite. Any other history would show
    in more of them, as each label that it hands out moves all that follow.
    """
    folder = evidence.folder
    order = the_order(evidence, np.zeros(len(evidence.records.ids), np.uint64), {})
    if order is None or not order.sure:
        return None
    elements = folder.elements
    labels = id_map.id_to_label.labels.astype(np.uint64)
    live = np.isin(labels, elements.labels[~elements.tombstoned])
    likeness = evidence.likeness(id_map.id_to_label, order.labels, live)
    if likeness is None or np.count_nonzero(likeness[0]) <= EXCEPTIONS:
        return None
    counts = {id_map.total_elements_added, len(elements.labels), folder.header.count}
    several = len(counts) > 1 or folder.lacking or folder.beyond  # moments, it may be
    if several and not only_made(evidence.records, evidence.log)[order.labels > 0].all():
        return None
    return by_order(evidence, order, likeness[1])


def the_order(evidence: Evidence, known: Labels, unknown_ids: Mapping[bytes, int]) -> Order | None:
    """The labels of the records by their order, if the store's release keeps to it."""
    view, labels = evidence.view, evidence.folder.elements.labels
    mark = view.vector_watermark
    possible = (labels > 0) & (labels <= len(labels) + evidence.folder.lacking)
    sound = possible.all() and not len(repeated_labels(labels)) and not evidence.folder.pages_lost
    release = view.writer
    if not (release.labels_follow_rows and sound and (mark is None or mark.is_number(release))):
        return None
    flushed = mark.value if mark else 0
    log = evidence.log
    made = np.flatnonzero(
        (log.grades == Grade.PROVEN) & (log.made == flushed) & (log.seq_ids == flushed)
    )
    live = np.sort(labels[~evidence.folder.elements.tombstoned])
    first = evidence.records.ids[int(made[0])] if len(made) else None
    hints = Hints(
        flushed=flushed,
        vectors=evidence.logged(flushed),
        made=first,
        labels=known,
        unknown_ids=unknown_ids,
        tombstones=evidence.folder.elements.tombstones,
        holds=evidence.holds,
    )
    return find_order(evidence.records, view.read_all_wal(), live, hints)


def by_order(evidence: Evidence, order: Order, disputed: Flags | None = None) -> FolderAssignment:
    """What follows from the order.

    Args:
        disputed: bool (n,): records whose label something speaks against.
    """
    element = np.full(len(order.labels), -1, np.int64)
    named = order.labels > 0
    element[named] = find_labels(evidence.folder.elements.labels, order.labels[named])
    return evidence.assignment(
        element,
        named,
        whole_map=True,
        names_unknown_ids=False,
        mixed=False,
        belongs=True,
        as_of=order.as_of,
        covered=True,
        guessed=np.full(len(element), not order.sure),
        disputed=disputed,
        by_order=True,
    )
