"""Account 2: do the elements and the id map name the same labels, each once?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hnswcheck.checks.ledger import Replay
from hnswcheck.checks.sampling import Sampler
from hnswcheck.disk.idmap import IdMap
from hnswcheck.disk.labels import Labels, find_labels, repeated_labels
from hnswcheck.disk.level0 import Elements
from hnswcheck.disk.strings import Flags, Ints
from hnswcheck.report import Finding, finding


@dataclass(frozen=True, slots=True)
class Placement:
    """Elements and id map laid side by side.

    Attributes:
        element: int64 (ids,): the element of each pair of the id map, -1 where there is none. Of
            several with one label the last, as hnswlib's loader takes it.
        tombstoned: bool (ids,): that element is marked deleted.
        unmapped: int64: live elements whose label no id has.
        duplicated: uint64: labels that more than one element carries.
    """

    element: Ints
    tombstoned: Flags
    unmapped: Ints
    duplicated: Labels


def place(elements: Elements, id_map: IdMap) -> Placement:
    """Find the element of every id."""
    wanted = id_map.id_to_label.labels.astype(np.uint64)
    element = find_labels(elements.labels, wanted)
    mapped = find_labels(wanted, elements.labels) >= 0
    return Placement(
        element,
        (element >= 0) & elements.tombstoned[element] if len(elements.labels) else element >= 0,
        np.flatnonzero(~mapped & ~elements.tombstoned),
        repeated_labels(elements.labels),
    )


def check_elements(
    elements: Elements, placement: Placement, id_map: IdMap, replay: Replay, sampler: Sampler
) -> Iterator[Finding]:
    """Findings about labels; what an interrupted flush explains becomes that one finding."""
    if len(placement.duplicated):
        labels = sampler.places(f"label {n}" for n in placement.duplicated.tolist())
        yield finding("label-duplicate", len(placement.duplicated), labels)
    ids = id_map.id_to_label.ids
    absent = np.flatnonzero(placement.element < 0)
    if len(absent):
        yield finding("label-missing", len(absent), sampler.strings(ids.take(absent)))
    dead = np.flatnonzero(placement.tombstoned)
    revived = np.array([i in replay.revived for i in dead.tolist()], bool)
    if len(dead[~revived]):
        sample = sampler.strings(ids.take(dead[~revived]))
        yield finding("label-tombstoned", len(dead[~revived]), sample)
    handed_out = _handed_out_by_replay(elements, id_map, replay)
    explained = placement.unmapped[handed_out[placement.unmapped]]
    unexplained = placement.unmapped[~handed_out[placement.unmapped]]
    if len(unexplained):
        places = (f"element {i}, label {elements.labels[i]}" for i in unexplained.tolist())
        yield finding("element-unmapped", len(unexplained), sampler.places(places))
    early = len(explained) + int(revived.sum())
    never_mapped = elements.labels > np.uint64(id_map.total_elements_added or 0)
    early += int(np.count_nonzero(handed_out & never_mapped & elements.tombstoned))
    if early:
        yield finding("flush-interrupted", early)


def _handed_out_by_replay(elements: Elements, id_map: IdMap, replay: Replay) -> Flags:
    """bool (count,): labels that the WAL explains, because replay hands them out again.

    Over an empty id map 1.x starts a new index with label 1; 0.x goes on counting.
    """
    total = id_map.total_elements_added or 0
    last_labels = {total} if len(id_map.id_to_label.ids) else {total, 0}
    handed_out = np.zeros(len(elements.labels), bool)
    for last in last_labels:
        beyond = elements.labels - np.uint64(last + 1)  # wraps to huge for labels at or below it
        handed_out |= beyond < np.uint64(replay.labels_handed_out)
    return handed_out
