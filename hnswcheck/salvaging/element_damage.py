"""Which elements of a folder damage has reached, or may have reached.

Tells it from the elements alone: from vectors that cannot be, from links that lead nowhere, and
from labels and norms that Chroma never wrote so.
"""

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
    """Look at every element of a folder, once, a chunk at a time."""
    look = _Look.at(folder)
    _visit(folder, look.visit)
    held = len(folder.elements.labels)
    faulty = np.zeros(held, bool)
    for places in look.faults.elements.values():
        faulty[places] = True
    scaleless, norms_lost = _norms_lost(folder)
    return ElementDamage(faulty, look.doubtful, scaleless, norms_lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What a reader of all elements notes.

    What came upon a vector from before it changed the links of the same element, and the last of
    them for certain. Of pages that a loss of power took, zeros are left within large vectors too:
    these count where a label was lost as well.

    Attributes:
        limit: no link of a sound element leads to an element with this number or a larger one.
        faults: vectors that cannot be what Chroma stored.
        doubtful: bool (held,): damage may have reached the element.
        behind_changed: bool (held,): the label of the element before it was changed.
        sectors_lost: some label was changed, so that whole sectors may be lost.
    """

    header: Header
    limit: int
    faults: VectorFaults
    doubtful: Flags
    behind_changed: Flags
    sectors_lost: bool

    @classmethod
    def at(cls, folder: DamagedSegment) -> _Look:
        """Before the first element."""
        labels = folder.elements.labels
        counted = len(labels) + folder.lacking
        changed = folder.relabelled | (labels == 0) | (labels > counted)
        return cls(
            header=folder.header,
            limit=GROWN * max(folder.room, counted),
            faults=VectorFaults(folder.norms),
            doubtful=folder.relabelled.copy(),
            behind_changed=np.append(False, changed)[:-1],
            sectors_lost=bool(changed.any()),
        )

    def visit(self, chunk: Chunk) -> None:
        """Look at some elements."""
        chunk.elements["flags"] = 0  # a delete mark may be damage, too
        self.faults.visit(chunk)
        part = slice(chunk.first, chunk.first + len(chunk.elements))
        links, degrees = chunk.elements["neighbours"], chunk.elements["degree"]
        outside = links >= self.limit
        if outside.any():
            last_used = links.shape[1] - 1 - np.argmax(links[:, ::-1] != 0, axis=1)
            self.doubtful[part] |= outside[np.arange(len(links)), last_used]
        if self.sectors_lost:
            used = np.arange(links.shape[1]) < degrees[:, None]
            unsound = (degrees == 0) | (degrees > links.shape[1]) | (used & outside).any(axis=1)
            self.doubtful[part] |= self.behind_changed[part] & unsound
            self.doubtful[part] |= _with_empty_sectors(chunk, self.header)


def _norms_lost(folder: DamagedSegment) -> tuple[Flags, bool]:
    """Which elements have no norm that Chroma would write, and whether length.bin is older.

    It is older where it ends before the elements, where the last one has no norm, or where more
    lack one than damage explains.

    Returns:
        bool (held,), and whether length.bin is older than the elements.
    """
    held = len(folder.elements.labels)
    if folder.norms is None:  # not cosine: nothing was divided by a norm
        return np.zeros(held, bool), False
    norms = folder.norms[:held]
    impossible = (norms != 0) & ~((norms > LEAST_NORM) & (norms < MOST_NORM))
    older = bool(np.count_nonzero(impossible) > EXCEPTIONS or impossible[-1:].any())
    missing = np.arange(held) >= folder.known_norms
    return impossible | missing, older or folder.known_norms < held


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
