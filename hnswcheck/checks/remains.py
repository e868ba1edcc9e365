"""What is left of a segment folder: vectors without a header, half an id map."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hnswcheck.checks.vectors import Floats, VectorFaults
from hnswcheck.disk.catalog import Collection
from hnswcheck.disk.header import Header, shaped
from hnswcheck.disk.idmap import IdMap
from hnswcheck.disk.level0 import Elements, read_vectors
from hnswcheck.disk.segment import LEVEL0, SegmentFolder, open_segment
from hnswcheck.disk.settings import DEFAULT_M, DeclaredSettings
from hnswcheck.disk.strings import Flags, Ints
from hnswcheck.errors import StoreUnreadable

#: Of so many labels per element at most every other one was deleted and purged.
PLAUSIBLE_LABELS = 1 << 10


@dataclass(frozen=True, slots=True)
class Folder:
    """A segment folder as far as it can be read.

    Attributes:
        header: its own, or one that fits the elements.
        norms: float32 (held,): of the elements, under cosine.
        known_norms: so many of them are there; the others count as 1, which cosine does not see.
    """

    path: Path
    header: Header
    elements: Elements
    norms: Floats | None
    known_norms: int

    def vectors(self, elements: Ints) -> Floats:
        """float32 (k, dimension): vectors of some elements, as they were added."""
        found = read_vectors(self.path / LEVEL0, self.header, elements)
        return found if self.norms is None else found * self.norms[elements, None]


def open_remains(
    path: Path, collection: Collection, settings: DeclaredSettings
) -> tuple[Folder, IdMap | None] | None:
    """A folder and what is left of its id map; None where no element can be read.

    Args:
        settings: for an index whose header is gone.
    """
    dimension, space = collection.dimension, collection.space
    assert dimension is not None
    try:
        segment = open_segment(path)
        if segment.irregular:
            return None
        if segment.header is None and LEVEL0 in segment.states:
            segment = _with_guessed_header(segment, dimension, settings)
        id_map = segment.read_id_map()
        elements = segment.read_elements()
    except StoreUnreadable:
        return None
    header = segment.header
    if header is None or elements is None or header.dimension != dimension:
        return None
    used = int(np.flatnonzero(elements.labels)[-1]) + 1 if elements.labels.any() else 0
    if used < len(elements.labels):  # labels begin at 1: room for elements, which nobody used
        header = replace(header, cur_element_count=used)
        segment = replace(segment, header=header)
        elements = Elements(elements.labels[:used], elements.tombstoned[:used])
    norms, known = segment.read_norms() if space == "cosine" else (None, 0)
    return Folder(path, header, elements, norms, known), id_map


def _with_guessed_header(
    segment: SegmentFolder, dimension: int, settings: DeclaredSettings
) -> SegmentFolder:
    """With the header that the collection's settings would give, if the elements bear it out.

    Labels are handed out from 1, each once; read at the wrong places they would be anything.
    """
    size = segment.states[LEVEL0].size
    for m in dict.fromkeys((settings.m, DEFAULT_M)):
        stride = shaped(dimension, m, settings.ef_construction, 0).stride
        header = shaped(dimension, m, settings.ef_construction, size // stride)
        guess = replace(segment, header=header, contradictions=())
        elements = guess.read_elements()
        labels = elements.labels if elements else np.zeros(0, np.uint64)
        used = int(np.count_nonzero(labels))  # an index has room for more elements at its end
        if used and not labels[used:].any() and int(labels.max()) <= PLAUSIBLE_LABELS * used:
            whole = replace(header, cur_element_count=used)
            return replace(guess, header=whole)
    return segment


def better_half(id_map: IdMap) -> IdMap:
    """With the longer of the two maps of a file that is cut or contradicts itself."""
    if id_map.problem is None or len(id_map.id_to_label.ids) >= len(id_map.label_to_id.ids):
        return id_map
    return replace(id_map, id_to_label=id_map.label_to_id)


def faulty_vectors(folder: Folder) -> Flags:
    """bool (held,): vectors that cannot be what Chroma stored."""
    faults = VectorFaults(folder.norms)
    held = len(folder.elements.labels)
    segment = replace(open_segment(folder.path), header=folder.header)
    segment.read_elements(faults.visit)
    faulty = np.zeros(held, bool)
    for places in faults.elements.values():
        faulty[places] = True
    return faulty
