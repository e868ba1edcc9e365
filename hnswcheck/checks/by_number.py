"""What a folder proves where nothing was ever updated or deleted.

Then the n-th record has the label n in every index that got all of them, of whatever moment, and
its vector never was another one. So each element proves itself, whatever happened to the others.
"""

from __future__ import annotations

import numpy as np

from hnswcheck.checks.flaws import EXCEPTIONS
from hnswcheck.checks.proof import FolderProof
from hnswcheck.checks.witness import Witness, flagged
from hnswcheck.disk.idmap import IdMap
from hnswcheck.disk.labels import find_labels, repeated_labels
from hnswcheck.disk.strings import positions


def by_number(w: Witness, id_map: IdMap | None) -> FolderProof | None:
    """By the numbers of the records; None if there may have been updates or deletes, if the folder
    is newer than sqlite or of several writers, or if nothing confirms the numbers.

    What confirms them is a vector of the log; where it has none, the id map and all counts.
    """
    folder, log, records = w.folder, w.log, w.records
    labels = folder.elements.labels
    counted = len(labels) + folder.lacking
    possible = labels[(labels > 0) & (labels <= counted)]
    newer = int(possible.max(initial=0)) > len(records.ids) or folder.elements.tombstones
    several = len(repeated_labels(possible))  # writers
    if newer or several or not (w.target.integers and _only_added(w)):
        return None
    numbers = np.arange(1, len(records.ids) + 1, dtype=np.uint64)
    element = find_labels(labels, numbers)
    inferred = np.zeros(len(numbers), bool)
    alike = np.zeros(len(numbers), bool)
    if id_map is not None:
        pairs = id_map.id_to_label
        at = positions(pairs.ids, records.ids)
        named = pairs.labels.astype(np.uint64)
        same = (at >= 0) & (named == (at + 1).astype(np.uint64))
        wrong = ~same & (named <= counted) & (named > 0)
        if w.are_strangers(pairs.ids.take(np.flatnonzero((at < 0) & (named > len(numbers))))).any():
            return None
        if np.count_nonzero(wrong) > EXCEPTIONS:
            return None
        inferred[np.isin(numbers, named[wrong])] = True
        inferred[at[wrong & (at >= 0)]] = True
        whole = id_map.problem is None and not folder.beyond
        if whole and id_map.total_elements_added == len(labels):
            alike[at[same]] = True
    there = (element >= 0) & ~flagged(w.flaws.faulty, element)
    logged = np.flatnonzero(there & (log.seq_ids > 0))
    confirmed = set(w.compared({int(log.seq_ids[i]): int(element[i]) for i in logged.tolist()}))
    if not confirmed and np.count_nonzero(alike) > EXCEPTIONS and w.is_no_others(alike):
        confirmed = {True}
    if confirmed != {True}:
        return None
    return w.proof(
        element,
        np.ones(len(numbers), bool),
        whole_map=False,
        strangers=False,
        mixed=False,
        belongs=True,
        moment=None,
        covered=False,
        inferred=inferred,
    )


def _only_added(w: Witness) -> bool:
    """Whether nothing ever happened to the records of this collection but that they were added."""
    log, records = w.log, w.records
    never_again = (log.made > 0) & (log.made == records.seq_ids)
    in_order = (np.diff(records.seq_ids) > 0).all()
    rows = w.target.read_all_wal()
    return bool(len(never_again) and never_again.all() and in_order) and all(
        row.operation in ("add", "upsert") for row in rows
    )
