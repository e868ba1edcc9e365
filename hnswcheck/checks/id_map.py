"""Is the id map whole, and a map?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.header import Header
from hnswcheck.formats.id_map import IdMap, Pairs
from hnswcheck.formats.labels import find_labels, repeated_labels
from hnswcheck.formats.pickle_tokens import Damage
from hnswcheck.kinds import FindingId
from hnswcheck.report import Finding, finding
from hnswcheck.store.releases import Release

FINDING_OF: dict[Damage, FindingId] = {
    Damage.TRUNCATED: "id-map-truncated",
    Damage.UNSAFE: "id-map-unsafe",
    Damage.INVALID: "id-map-invalid",
}


def check_id_map(
    id_map: IdMap, size: int, header: Header | None, dimension: int | None, sampler: Sampler
) -> Iterator[Finding]:
    """Findings about an index_metadata.pickle of ``size`` bytes."""
    if id_map.problem is not None:
        kind = FINDING_OF[id_map.problem.damage]
        found = f"byte {id_map.problem.offset} of {size}: {id_map.problem.text}"
        yield finding(kind, 1, (), "a whole id map", found)
        return
    yield from _not_inverse(id_map.id_to_label, id_map.label_to_id, sampler)
    yield from _out_of_range(id_map, sampler)
    dimension = header.dimension if header else dimension
    named = id_map.dimensionality
    if named is not None and named != dimension and len(id_map.id_to_label.ids):
        yield finding("id-map-dimension-mismatch", 1, (), dimension, named)


def check_shape(id_map: IdMap, opener: Release) -> Iterator[Finding]:
    """A line reads the id maps of older ones; those of 0.x know no other shape than their own."""
    if id_map.problem is None and id_map.shape == "dict" and opener.id_map == "instance":
        yield finding("id-map-too-new", 1)


def _not_inverse(forward: Pairs, backward: Pairs, sampler: Sampler) -> Iterator[Finding]:
    """Every pair of one map must be in the other, and no id or label may come twice."""
    place = find_labels(backward.labels.astype(np.uint64), forward.labels.astype(np.uint64))
    same = place >= 0
    if len(backward.labels):
        same &= forward.ids.hashes == backward.ids.hashes[place]
    repeats = len(repeated_labels(forward.labels.astype(np.uint64)))
    repeats += forward.ids.repeats()
    unanswered = len(backward.labels) - int(np.count_nonzero(same))
    count = max(len(forward.labels) - int(np.count_nonzero(same)), unanswered, repeats)
    if count:
        ids = sampler.strings(forward.ids.take(np.flatnonzero(~same)))
        yield finding("id-map-not-inverse", count, ids)


def _out_of_range(id_map: IdMap, sampler: Sampler) -> Iterator[Finding]:
    total, labels = id_map.total_elements_added or 0, id_map.id_to_label.labels
    wrong = np.flatnonzero((labels < 1) | (labels > total))
    if len(wrong):
        ids = sampler.strings(id_map.id_to_label.ids.take(wrong))
        found = f"{labels[wrong].min()} to {labels[wrong].max()}"
        yield finding("id-map-label-out-of-range", len(wrong), ids, f"1 to {total}", found)
