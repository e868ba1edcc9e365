"""What a folder proves by the order of the records, in which labels are handed out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hnswcheck.checks.flaws import EXCEPTIONS
from hnswcheck.checks.order import Hints, Order, find_order
from hnswcheck.checks.proof import FolderProof, Grade
from hnswcheck.checks.witness import Witness
from hnswcheck.disk.idmap import IdMap
from hnswcheck.disk.labels import Labels, find_labels, repeated_labels
from hnswcheck.disk.strings import Flags, positions


def despite(w: Witness, id_map: IdMap) -> FolderProof | None:
    """By the order, if the id map says the same but for a few pairs; None if it does not.

    Damage may have changed these, or their records in sqlite. Any other history would show
    in more of them, as each label that it hands out moves all that follow.
    """
    folder, log = w.folder, w.log
    order = the_order(w, np.zeros(len(w.records.ids), np.uint64), {})
    if order is None or not order.sure:
        return None
    pairs, elements = id_map.id_to_label, folder.elements
    labels = pairs.labels.astype(np.uint64)
    at = positions(pairs.ids, w.records.ids)
    live = np.isin(labels, elements.labels[~elements.tombstoned])
    same = (at >= 0) & (order.labels[at] == labels)
    wrong = live & ~same
    if np.count_nonzero(wrong) > EXCEPTIONS or np.count_nonzero(same) <= EXCEPTIONS:
        return None
    if w.are_strangers(pairs.ids.take(np.flatnonzero((at < 0) & ~live))).any():
        return None  # newer than sqlite
    counts = {id_map.total_elements_added, len(elements.labels), folder.header.count}
    changed = (log.made == 0) | (log.made != w.records.seq_ids)
    if (len(counts) > 1 or folder.lacking or folder.beyond) and changed[order.labels > 0].any():
        return None  # elements may be of several moments
    disputed = np.isin(order.labels, labels[wrong])
    disputed[at[wrong & (at >= 0)]] = True
    return by_order(w, order, disputed)


def the_order(w: Witness, known: Labels, strangers: Mapping[bytes, int]) -> Order | None:
    """The labels of the records by their order, if 1.x wrote them."""
    target, labels = w.target, w.folder.elements.labels
    mark = target.vector_watermark
    possible = (labels > 0) & (labels <= len(labels) + w.folder.lacking)
    sound = possible.all() and not len(repeated_labels(labels)) and not w.folder.pages_lost
    if not (target.integers and sound and (mark is None or mark.is_number(True))):
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
        inferred=np.full(len(element), not order.sure) if disputed is None else disputed,
    )
