"""Whose the elements are, by the id map of their folder.

Proves it from agreement: id map and elements are of one history, each accounts for the other, and
the log contradicts neither. When they were written the watermark tells.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hnswcheck.checks.elements import place
from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.formats.id_map import IdMap, Pairs
from hnswcheck.formats.labels import repeated_labels
from hnswcheck.formats.strings import Strings, find, positions
from hnswcheck.salvaging.as_of import FolderAsOf, folder_as_of
from hnswcheck.salvaging.damaged_segment import DamagedSegment
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
    """Give each record the element whose label the id map has for it, and say what that proves.

    The id map alone proves nothing: it may be of another moment than the elements, of another
    collection, or of several writers. So it has to be of one history with the elements, it has to
    account for all of them, and the log must not contradict it. What then tells when the folder was
    written is the watermark (see :mod:`hnswcheck.salvaging.as_of`).

    Args:
        disputed: bool (pairs,): the file contradicts itself in these.
    """
    named = _named(evidence, id_map)
    whole_map = id_map.problem is None
    as_of = FolderAsOf.unknown()
    if whole_map:
        as_of = folder_as_of(evidence.folder.path, id_map, evidence.records, evidence.view)
    mixed = _is_mixed(evidence, id_map, named, as_of.balanced)
    one_history = not (mixed or (whole_map and named.has_stray_elements) or evidence.folder.beyond)
    whole_account = one_history and _accounts_for_all(evidence.folder, id_map, named)
    torn = whole_account and evidence.folder.torn
    when = as_of.seq_id
    if not one_history or (len(named.absent) and not torn):
        when = None
    if when is not None and not _agrees_with_log(evidence, named, when):
        when = None
    unknown = _labels_of_unknown_ids(evidence, id_map, named)
    # Had they been deleted since, none of these records were made before them and never deleted.
    oldest_unknown = int(unknown.min(initial=NEVER))
    newest_known = int(named.labels[evidence.log.ever & named.mapped].max(initial=0))
    newer = oldest_unknown < newest_known
    return evidence.assignment(
        named.element,
        named.mapped,
        whole_map=whole_map,
        names_unknown_ids=len(unknown) > 0,
        mixed=mixed,
        belongs=not newer and evidence.belongs(named.element, named.mapped, whole_account),
        as_of=when,
        covered=as_of.covered,
        disputed=flagged(disputed, named.pair),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """What an id map names, laid beside the n records.

    Attributes:
        pair: int64 (n,): the pair of each record, -1 for none.
        labels: int64 (n,): its label, -1 for none.
        element: int64 (n,): the element with that label, -1 for none.
        absent: int64: labels that the id map has and no element.
        cut_off: some are, and not more than elements are lacking.
        has_stray_elements: an element has a label that was handed out, but no id.
    """

    pair: Ints
    labels: Ints
    element: Ints
    absent: Ints
    cut_off: bool
    has_stray_elements: bool

    @property
    def mapped(self) -> Flags:
        """bool (n,): the id map names the record."""
        return np.asarray(self.pair >= 0)


def _named(evidence: Evidence, id_map: IdMap) -> _Named:
    """Lay an id map beside records and elements."""
    folder, pairs = evidence.folder, id_map.id_to_label
    placement = place(folder.elements, id_map)
    pair = positions(evidence.records.ids, pairs.ids)
    mapped = pair >= 0
    labels, element = pair.copy(), pair.copy()
    labels[mapped] = pairs.labels[pair[mapped]]
    element[mapped] = placement.element[pair[mapped]]
    absent = pairs.labels[placement.element < 0]
    handed_out = folder.elements.labels <= np.uint64(_handed_out(id_map))
    return _Named(
        pair=pair,
        labels=labels,
        element=element,
        absent=absent,
        cut_off=0 < len(absent) <= folder.lacking,
        has_stray_elements=bool((placement.unmapped & handed_out).any()),
    )


def _handed_out(id_map: IdMap) -> int:
    """How many labels the index handed out, by the id map; 0 where that is not known."""
    return max(0, id_map.total_elements_added or 0)


def _accounts_for_all(folder: DamagedSegment, id_map: IdMap, named: _Named) -> bool:
    """Whether as many elements are there as labels were handed out, or were before a cut."""
    elements = len(folder.elements.labels) + folder.lacking
    return _handed_out(id_map) == elements and (named.cut_off or not len(named.absent))


def _labels_of_unknown_ids(evidence: Evidence, id_map: IdMap, named: _Named) -> Ints:
    """int64: the labels of ids that neither sqlite nor the log knows."""
    pairs = id_map.id_to_label
    of_no_record = np.ones(len(pairs.ids), bool)
    of_no_record[named.pair[named.mapped]] = False
    others = np.flatnonzero(of_no_record)
    return pairs.labels[others[evidence.are_unknown(pairs.ids.take(others))]]


def _is_mixed(evidence: Evidence, id_map: IdMap, named: _Named, balanced: bool) -> bool:
    """Whether labels cannot be those of one history.

    In one history each label is one element's, labels that are not there yet are larger than
    all that are, and where labels follow rows a record that was made later has the larger label.
    """
    stored = evidence.folder.elements.labels
    if evidence.folder.pages_lost or len(repeated_labels(stored)):
        return True
    absent = named.absent
    below = len(stored) > 0 and len(absent) > 0 and int(absent.min()) <= int(stored.max())
    if below and not named.cut_off:
        return True
    if not labels_follow_rows(id_map.shape) or balanced:
        return False
    labels = named.labels
    there = np.flatnonzero(named.element >= 0)
    if (np.diff(labels[there]) > 0).all():
        return False
    # An index that was begun anew hands out labels again to old records that are written.
    by_label = there[np.argsort(labels[there])]
    made = np.maximum.accumulate(made_from(evidence.records, evidence.log)[by_label])
    ordered = (evidence.records.seq_ids[by_label] >= made).all()
    return not (ordered and begun_anew(labels >= 0, evidence.records).any())


def _agrees_with_log(evidence: Evidence, named: _Named, as_of: int) -> bool:
    """Whether what the log still has of the time before says the same, or could by its ids.

    Args:
        as_of: the last operation that the folder reflects.
    """
    rows = evidence.logged(as_of)
    at = find(rows, evidence.records.ids)
    element = named.element
    places = {rows[record]: int(element[i]) for record, i in at.items() if element[i] >= 0}
    return all(evidence.compared(places)) if places else evidence.is_no_others(named.mapped)
