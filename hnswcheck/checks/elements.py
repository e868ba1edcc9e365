"""Account 2: do the elements and the id map name the same labels, each once?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.arrays import Flags, Ints, Labels
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.labels import find_labels, repeated_labels
from hnswcheck.formats.level0 import Elements
from hnswcheck.formats.strings import Strings
from hnswcheck.kinds import FindingId
from hnswcheck.replay.index import Replay
from hnswcheck.report import Finding, finding
from hnswcheck.store.releases import Release


@dataclass(frozen=True, slots=True)
class Placement:
    """Elements and id map laid side by side.

    Attributes:
        element: int64 (ids,): the element of each pair of the id map, -1 where there is none. Of
            several with one label the last, as hnswlib's loader takes it.
        tombstoned: bool (ids,): that element is marked deleted.
        unmapped: bool (count,): live elements whose label no id has.
        duplicated: uint64: labels that more than one element carries.
    """

    element: Ints
    tombstoned: Flags
    unmapped: Flags
    duplicated: Labels


def place(elements: Elements, id_map: IdMap) -> Placement:
    """Find the element of every id."""
    wanted = id_map.id_to_label.labels.astype(np.uint64)
    element = find_labels(elements.labels, wanted)
    mapped = find_labels(wanted, elements.labels) >= 0
    return Placement(
        element,
        (element >= 0) & elements.tombstoned[element] if len(elements.labels) else element >= 0,
        ~mapped & ~elements.tombstoned,
        repeated_labels(elements.labels),
    )


def check_elements(
    elements: Elements,
    placement: Placement,
    id_map: IdMap,
    replay: Replay,
    release: Release,
    sampler: Sampler,
) -> Iterator[Finding]:
    """Findings about labels; what an interrupted flush explains becomes that one finding."""
    yield from _check_labels(placement, sampler)
    yield from _check_ids(placement, id_map.id_to_label.ids, replay, sampler)
    yield from _check_stray(elements, placement, id_map, replay, release, sampler)


def _check_labels(placement: Placement, sampler: Sampler) -> Iterator[Finding]:
    """Labels that more than one element carries."""
    if len(placement.duplicated):
        labels = sampler.places(f"label {n}" for n in placement.duplicated.tolist())
        yield finding("label-duplicate", len(placement.duplicated), labels)


def _check_ids(
    placement: Placement, ids: Strings, replay: Replay, sampler: Sampler
) -> Iterator[Finding]:
    """Ids without a live element, but for those that replay writes again."""
    written_again = np.zeros(len(ids), bool)
    written_again[list(replay.revived)] = True
    ways: dict[FindingId, Flags] = {
        "label-missing": placement.element < 0,
        "label-tombstoned": placement.tombstoned,
    }
    for kind, affected in ways.items():
        at = np.flatnonzero(affected & ~written_again)
        if len(at):
            yield finding(kind, len(at), sampler.strings(ids.take(at)))


def _check_stray(
    elements: Elements,
    placement: Placement,
    id_map: IdMap,
    replay: Replay,
    release: Release,
    sampler: Sampler,
) -> Iterator[Finding]:
    """Elements that the id map does not know of, unless a flush was interrupted there.

    Labels above the counter of the id map are those that the next writes will get.
    """
    total = id_map.total_elements_added or 0
    beyond = elements.labels > np.uint64(total)
    stray = placement.unmapped | (beyond & elements.tombstoned)
    handed_out = beyond & (elements.labels <= np.uint64(total + replay.labels_handed_out))
    unexplained = stray & ~handed_out
    if release.revives_tombstones:
        unexplained &= ~elements.tombstoned
    if unexplained.any():
        found = np.flatnonzero(unexplained)
        places = (f"element {i}, label {elements.labels[i]}" for i in found.tolist())
        yield finding("element-unmapped", len(found), sampler.places(places))
    early = int(np.count_nonzero(stray & handed_out)) + len(replay.revived)
    if early:
        yield finding("flush-interrupted", early)
