"""What damage did to the vectors of a folder, or may have done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hnswcheck.checks.vectors import LEAST_NORM, MOST_NORM, VectorFaults
from hnswcheck.formats.arrays import Flags
from hnswcheck.formats.header import Header
from hnswcheck.formats.level0 import Chunk
from hnswcheck.salvaging.damaged_segment import SECTOR, DamagedSegment
from hnswcheck.store.segment import open_segment

#: So many of very many may be wrong by damage to these alone.
EXCEPTIONS = 2
#: Links in pages of a later flush lead to elements that are not there: not to so many times more.
GROWN = 16


@dataclass(frozen=True, slots=True)
class ElementDamage:
    """What damage did to the vectors of a folder, or may have done.

    Attributes:
        faulty: bool (held,): it cannot be what Chroma stored.
        doubtful: bool (held,): damage to its links or to the label before these may have reached
            it, or it has the label by guess.
        scaleless: bool (held,): length.bin has no norm for it that Chroma would write.
        norms_lost: length.bin is older than the elements.
    """

    faulty: Flags
    doubtful: Flags
    scaleless: Flags
    norms_lost: bool


def damage_of(folder: DamagedSegment) -> ElementDamage:
    """Look at every element.

    What came upon a vector from before it changed the links of the same element, and the last of
    them for certain. Of pages that a loss of power took, zeros are left within large vectors too:
    these count where a label was lost as well.
    """
    header, labels = folder.header, folder.elements.labels
    held = len(labels)
    limit = GROWN * max(folder.room, held + folder.lacking)
    faults, doubtful = VectorFaults(folder.norms), folder.relabelled.copy()
    changed = folder.relabelled | (labels == 0) | (labels > held + folder.lacking)
    behind = np.append(False, changed)[:-1]
    sectors = bool(changed.any())

    def visit(chunk: Chunk) -> None:
        chunk.elements["flags"] = 0  # a delete mark may be damage, too
        faults.visit(chunk)
        part = slice(chunk.first, chunk.first + len(chunk.elements))
        links, degrees = chunk.elements["neighbours"], chunk.elements["degree"]
        outside = links >= limit
        if outside.any():
            last = links.shape[1] - 1 - np.argmax(links[:, ::-1] != 0, axis=1)
            doubtful[part] |= outside[np.arange(len(links)), last]
        if sectors:
            used = np.arange(links.shape[1]) < degrees[:, None]
            unsound = (degrees == 0) | (degrees > links.shape[1]) | (used & outside).any(axis=1)
            doubtful[part] |= (behind[part] & unsound) | _with_empty_sectors(chunk, header)

    _visit(folder, visit)
    faulty = np.zeros(held, bool)
    for places in faults.elements.values():
        faulty[places] = True
    if folder.norms is None:
        return ElementDamage(faulty, doubtful, np.zeros(held, bool), norms_lost=False)
    norms = folder.norms[:held]
    scaleless = (norms != 0) & ~((norms > LEAST_NORM) & (norms < MOST_NORM))
    old = np.count_nonzero(scaleless) > EXCEPTIONS or scaleless[-1:].any()
    scaleless |= np.arange(held) >= folder.known_norms
    return ElementDamage(faulty, doubtful, scaleless, bool(old) or folder.known_norms < held)


def _with_empty_sectors(chunk: Chunk, header: Header) -> Flags:
    """bool (elements,): all of the vector that lies in some sector of the file is zero."""
    filled = chunk.elements["vector"] != 0
    count, dimension = filled.shape
    begin = (chunk.first + np.arange(count)) * header.stride + header.offset_data
    sector = (begin[:, None] + 4 * np.arange(dimension)) // SECTOR - begin[:, None] // SECTOR
    width = int(sector.max(initial=0)) + 1
    place = (sector + width * np.arange(count)[:, None]).ravel()
    there = np.bincount(place, minlength=count * width)
    full = np.bincount(place, weights=filled.ravel(), minlength=count * width)
    empty = (there > 0) & (full == 0)
    return np.asarray(empty.reshape(count, width).any(axis=1))


def was_cut(folder: DamagedSegment) -> bool:
    """Whether its elements have links to those that are lacking, as they were once in the file."""
    held = len(folder.elements.labels)
    found: list[bool] = []

    def visit(chunk: Chunk) -> None:
        links = chunk.elements["neighbours"]
        used = np.arange(links.shape[1]) < chunk.elements["degree"][:, None]
        found.append(bool((used & (links >= held) & (links < held + folder.lacking)).any()))

    if folder.lacking:
        _visit(folder, visit)
    return any(found)


def _visit(folder: DamagedSegment, visit: Callable[[Chunk], None]) -> None:
    replace(open_segment(folder.path), header=folder.header).read_elements(visit)
