"""What a folder proves where nothing was ever updated or deleted.

Then the n-th record has the label n in every index that got all of them, of whatever moment, and
its vector never was another one. So each element proves itself, whatever happened to the others.
"""

from __future__ import annotations

import numpy as np

from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.labels import find_labels, repeated_labels
from hnswcheck.salvaging.element_damage import EXCEPTIONS
from hnswcheck.salvaging.evidence import Evidence
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.grading import only_made


def by_number(evidence: Evidence, id_map: IdMap | None) -> FolderAssignment | None:
    """By the numbers of the records.

    None if there may have been updates or deletes, if the folder is newer than sqlite or of several
    writers, or if nothing confirms the numbers.

    What confirms them is a vector of the log; where it has none, the id map and all counts.
    """
    folder, records = evidence.folder, evidence.records
    labels = folder.elements.labels
    counted = len(labels) + folder.lacking
    possible = (labels > 0) & (labels <= counted)
    deleted = folder.elements.tombstoned & possible & ~evidence.damage.doubtful
    newer = int(labels[possible].max(initial=0)) > len(records.ids) or deleted.any()
    several = len(repeated_labels(labels[possible]))  # writers
    if newer or several or not (evidence.view.writer.labels_follow_rows and _only_added(evidence)):
        return None
    numbers = np.arange(1, len(records.ids) + 1, dtype=np.uint64)
    element = find_labels(labels, numbers)
    alike, disputed = np.zeros(len(numbers), bool), np.zeros(len(numbers), bool)
    if id_map is not None:
        pairs = id_map.id_to_label
        likeness = evidence.likeness(
            pairs, numbers, (pairs.labels > 0) & (pairs.labels <= min(counted, len(numbers)))
        )
        if likeness is None:
            return None
        disputed = likeness[1]
        whole = id_map.problem is None and not folder.beyond
        if whole and id_map.total_elements_added == len(labels):
            alike = likeness[0]
    confirmed = evidence.said_by_log(element)
    if not confirmed and np.count_nonzero(alike) > EXCEPTIONS and evidence.is_no_others(alike):
        confirmed = {True}
    if confirmed != {True}:
        return None
    return evidence.assignment(
        element,
        np.ones(len(numbers), bool),
        whole_map=False,
        names_unknown_ids=False,
        mixed=False,
        belongs=True,
        as_of=None,
        covered=False,
        disputed=disputed,
    )


def _only_added(evidence: Evidence) -> bool:
    """Whether nothing ever happened to the records of this collection but that they were added."""
    records = evidence.records
    in_order = len(records.ids) > 0 and (np.diff(records.seq_ids) > 0).all()
    only_adds = all(row.operation in ("add", "upsert") for row in evidence.view.read_all_wal())
    return bool(in_order and only_made(records, evidence.log).all()) and only_adds
