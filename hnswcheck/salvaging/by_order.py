"""What a folder proves by the order of the records, in which labels are handed out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hnswcheck.formats.arrays import Flags, Labels
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.labels import find_labels, repeated_labels
from hnswcheck.salvaging.element_damage import EXCEPTIONS
from hnswcheck.salvaging.evidence import Witness
from hnswcheck.salvaging.folder_assignment import FolderProof
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.grading import only_made
from hnswcheck.salvaging.label_order import Hints, Order, find_order


def despite(w: Witness, id_map: IdMap) -> FolderProof | None:
    """By the order, if the id map says the same but for a few pairs; None if it does not.

    Damage may have changed these, or their records in sqlite. Any other history would show
    in more of them, as each label that it hands out moves all that follow.
    """
    folder = w.folder
    order = the_order(w, np.zeros(len(w.records.ids), np.uint64), {})
    if order is None or not order.sure:
        return None
    elements = folder.elements
    labels = id_map.id_to_label.labels.astype(np.uint64)
    live = np.isin(labels, elements.labels[~elements.tombstoned])
    likeness = w.likeness(id_map.id_to_label, order.labels, live)
    if likeness is None or np.count_nonzero(likeness[0]) <= EXCEPTIONS:
        return None
    counts = {id_map.total_elements_added, len(elements.labels), folder.header.count}
    several = len(counts) > 1 or folder.lacking or folder.beyond  # moments, it may be
    if several and not only_made(w.records, w.log)[order.labels > 0].all():
        return None
    return by_order(w, order, likeness[1])


def the_order(w: Witness, known: Labels, strangers: Mapping[bytes, int]) -> Order | None:
    """The labels of the records by their order, if the store's release keeps to it."""
    target, labels = w.target, w.folder.elements.labels
    mark = target.vector_watermark
    possible = (labels > 0) & (labels <= len(labels) + w.folder.lacking)
    sound = possible.all() and not len(repeated_labels(labels)) and not w.folder.pages_lost
    release = target.release
    if not (release.labels_follow_rows and sound and (mark is None or mark.is_number(release))):
        return None
    flushed = mark.value if mark else 0
    log = w.log
    made = np.flatnonzero(
        (log.grades == Grade.PROVEN) & (log.made == flushed) & (log.seq_ids == flushed)
    )
    live = np.sort(labels[~w.folder.elements.tombstoned])
    first = w.records.ids[int(made[0])] if len(made) else None
    hints = Hints(
        flushed, w.logged(flushed), first, known, strangers, w.folder.elements.tombstones, w.holds
    )
    return find_order(w.records, target.read_all_wal(), live, hints)


def by_order(w: Witness, order: Order, disputed: Flags | None = None) -> FolderProof:
    """What follows from the order.

    Args:
        disputed: bool (n,): records whose label something speaks against.
    """
    element = np.full(len(order.labels), -1, np.int64)
    named = order.labels > 0
    element[named] = find_labels(w.folder.elements.labels, order.labels[named])
    return w.proof(
        element,
        named,
        whole_map=True,
        strangers=False,
        mixed=False,
        belongs=True,
        moment=order.moment,
        covered=True,
        guessed=np.full(len(element), not order.sure),
        disputed=disputed,
        by_order=True,
    )
