"""What a folder proves by its id map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hnswcheck.checks.elements import place
from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.formats.id_map import IdMap, Pairs
from hnswcheck.formats.labels import repeated_labels
from hnswcheck.formats.strings import Strings, find, positions
from hnswcheck.salvaging.as_of import folder_as_of
from hnswcheck.salvaging.evidence import Evidence, flagged
from hnswcheck.salvaging.folder_assignment import FolderAssignment
from hnswcheck.salvaging.grade import NEVER
from hnswcheck.salvaging.grading import begun_anew, made_from
from hnswcheck.salvaging.label_gaps import between_known
from hnswcheck.store.releases import labels_follow_rows


def completed(evidence: Evidence, id_map: IdMap) -> IdMap:
    """With the labels that lie between those of ids whose records are neighbours."""
    pairs, elements = id_map.id_to_label, evidence.folder.elements
    at = positions(pairs.ids, evidence.records.ids)
    known = np.zeros(len(evidence.records.ids), np.uint64)
    known[at[at >= 0]] = pairs.labels[at >= 0].astype(np.uint64)
    live = np.setdiff1d(
        elements.labels[~elements.tombstoned], pairs.labels[at < 0].astype(np.uint64)
    )
    labels = between_known(known, live)
    new = np.flatnonzero((labels > 0) & (known == 0))
    every = Pairs(
        Strings.concatenated([pairs.ids, evidence.records.ids.take(new)]),
        np.concatenate([pairs.labels, labels[new].astype(np.int64)]),
    )
    whole = not len(np.setdiff1d(live, labels)) and id_map.total_elements_added is not None
    return replace(id_map, id_to_label=every, problem=None if whole else id_map.problem)


def by_id_map(evidence: Evidence, id_map: IdMap, disputed: Flags) -> FolderAssignment:
    """What follows from the id map.

    Args:
        disputed: bool (pairs,): the file contradicts itself in these.
    """
    folder, records = evidence.folder, evidence.records
    placement = place(folder.elements, id_map)
    pairs = id_map.id_to_label
    at = positions(records.ids, pairs.ids)
    mapped = at >= 0
    element, labels = at.copy(), at.copy()
    element[mapped] = placement.element[at[mapped]]
    labels[mapped] = pairs.labels[at[mapped]]
    absent = id_map.id_to_label.labels[placement.element < 0]
    cut_off = 0 < len(absent) <= folder.lacking
    total = max(0, id_map.total_elements_added or 0)
    stray = placement.unmapped & (folder.elements.labels <= np.uint64(total))
    as_of, covered, balanced = None, False, False
    if id_map.problem is None:
        as_of, covered, balanced = folder_as_of(folder.path, id_map, records, evidence.view)
    mixed = _is_mixed(evidence, id_map, absent, cut_off, labels, element, balanced)
    counted = len(folder.elements.labels) + folder.lacking
    whole_map = id_map.problem is None
    unnamed = np.ones(len(pairs.ids), bool)
    unnamed[at[mapped]] = False
    others = np.flatnonzero(unnamed)
    unknown = pairs.labels[others[evidence.are_unknown(pairs.ids.take(others))]]
    # Had they been deleted since, none of these records were made before them and never deleted.
    newer = unknown.min(initial=NEVER) < labels[evidence.log.ever & mapped].max(initial=0)
    one_history = not (mixed or (whole_map and stray.any()) or folder.beyond)
    whole_account = one_history and total == counted and (cut_off or not len(absent))
    torn = whole_account and folder.torn
    if not one_history or (len(absent) and not torn):
        as_of = None
    if as_of is not None and not _agrees_with_log(evidence, element, mapped, as_of):
        as_of = None
    return evidence.assignment(
        element,
        mapped,
        whole_map=whole_map,
        names_unknown_ids=len(unknown) > 0,
        mixed=mixed,
        belongs=not newer and evidence.belongs(element, mapped, whole_account),
        as_of=as_of,
        covered=covered,
        disputed=flagged(disputed, at),
    )


def _is_mixed(
    evidence: Evidence,
    id_map: IdMap,
    absent: Ints,
    cut_off: bool,
    labels: Ints,
    element: Ints,
    balanced: bool,
) -> bool:
    """Whether labels cannot be those of one history.

    In one history each label is one element's, labels that are not there yet are larger than
    all that are, and where labels follow rows a record that was made later has the larger label.
    """
    stored = evidence.folder.elements.labels
    if evidence.folder.pages_lost or len(repeated_labels(stored)):
        return True
    if len(absent) and not cut_off and len(stored) and int(absent.min()) <= int(stored.max()):
        return True
    if not labels_follow_rows(id_map.shape) or balanced:
        return False
    there = np.flatnonzero(element >= 0)
    if (np.diff(labels[there]) > 0).all():
        return False
    # An index that was begun anew hands out labels again to old records that are written.
    by_label = there[np.argsort(labels[there])]
    made = np.maximum.accumulate(made_from(evidence.records, evidence.log)[by_label])
    ordered = (evidence.records.seq_ids[by_label] >= made).all()
    return not (ordered and begun_anew(labels >= 0, evidence.records).any())


def _agrees_with_log(evidence: Evidence, element: Ints, mapped: Flags, as_of: int) -> bool:
    """Whether what the log still has of the time before says the same, or could by its ids."""
    rows = evidence.logged(as_of)
    at = find(rows, evidence.records.ids)
    places = {rows[record]: int(element[i]) for record, i in at.items() if element[i] >= 0}
    return all(evidence.compared(places)) if places else evidence.is_no_others(mapped)
