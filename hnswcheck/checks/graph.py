"""Can a search walk the graph without leaving it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.arrays import Flags, Ints, Words
from hnswcheck.formats.header import NO_ENTRY_POINT, Header
from hnswcheck.formats.level0 import Chunk
from hnswcheck.formats.link_lists import LinkLists
from hnswcheck.kinds import FindingId
from hnswcheck.report import Finding, finding

_LAST = np.uint32(0xFFFFFFFF)


@dataclass(slots=True, kw_only=True)
class LinkFaults:
    """Faulty links found so far: how many, and where the first of them are.

    Links are counted one by one (of a repeated neighbour, each repetition), lists that are too
    long list by list.

    Attributes:
        owners: the elements whose links they are, an array for each chunk.
        entry_links: links that lead away from the entry point, on all its levels.
    """

    limit: int | None
    counts: dict[FindingId, int] = field(default_factory=dict)
    places: dict[FindingId, list[str]] = field(default_factory=dict)
    owners: dict[FindingId, list[Ints]] = field(default_factory=dict)
    entry_links: int = 0

    def add(self, kind: FindingId, per_list: Ints, owner: Ints, level: Ints) -> None:
        """Count ``per_list`` faulty links in the lists of ``owner`` at ``level``."""
        faulty = np.flatnonzero(per_list)
        if not len(faulty):
            return
        self.counts[kind] = self.counts.get(kind, 0) + int(per_list.sum())
        self.owners.setdefault(kind, []).append(owner[faulty])
        places = self.places.setdefault(kind, [])
        room = len(faulty) if self.limit is None else max(0, self.limit - len(places))
        for i in faulty[:room].tolist():
            places.append(f"element {owner[i]}, level {level[i]}")

    def findings(self, sampler: Sampler) -> Iterator[Finding]:
        """One finding for each kind of fault that was met."""
        for kind in (
            "neighbour-out-of-range",
            "neighbour-self",
            "neighbour-duplicate",
            "degree-too-large",
            "level-inconsistent",
        ):
            if kind in self.counts:
                elements = len(np.unique(np.concatenate(self.owners[kind])))
                found = f"affected elements: {elements:,}"
                places = sampler.places(self.places[kind])
                yield finding(kind, self.counts[kind], places, found=found)


def check_chunk(chunk: Chunk, header: Header, faults: LinkFaults) -> None:
    """Judge the level-0 links of some elements."""
    owner = np.arange(chunk.first, chunk.first + len(chunk.elements))
    if chunk.first <= header.enterpoint_node < chunk.first + len(owner):
        faults.entry_links += int(chunk.elements["degree"][header.enterpoint_node - chunk.first])
    degrees = chunk.elements["degree"].astype(np.uint32)
    level = np.zeros(len(owner), np.int64)
    _check_lists(chunk.elements["neighbours"], degrees, owner, level, header.count, faults)


def check_links(lists: LinkLists, header: Header, faults: LinkFaults) -> None:
    """Judge the links above level 0, and that neighbours reach the level of the link."""
    _check_lists(lists.neighbours, lists.degrees, lists.owner, lists.level, header.count, faults)
    faults.entry_links += int(lists.degrees[lists.owner == header.enterpoint_node].sum())
    used = _used(lists.neighbours, lists.degrees)
    used &= lists.neighbours < header.count
    reach = lists.levels[np.where(used, lists.neighbours, 0)] if header.count else used
    short = used & (reach < lists.level[:, None])
    faults.add("level-inconsistent", short.sum(axis=1), lists.owner, lists.level)


def _check_lists(
    neighbours: Words, degrees: Words, owner: Ints, level: Ints, count: int, faults: LinkFaults
) -> None:
    """Judge link lists, each a row of ``neighbours`` of which ``degrees`` are in use."""
    faults.add("degree-too-large", (degrees > neighbours.shape[1]).astype(int), owner, level)
    used = _used(neighbours, degrees)
    # Unused places get distinct numbers that no element has, so that sorting shows repetitions.
    filler = _LAST - np.arange(neighbours.shape[1], dtype=np.uint32)
    links = np.where(used, neighbours, filler)
    own = links == owner.astype(np.uint32)[:, None]
    if own.any():
        faults.add("neighbour-self", (own & used).sum(axis=1), owner, level)
    outside = links >= np.uint32(min(count, 0xFFFFFFFF))
    outside &= used
    if outside.any():
        faults.add("neighbour-out-of-range", outside.sum(axis=1), owner, level)
    links.sort(axis=1)
    repeated = links[:, 1:] == links[:, :-1]
    if repeated.any():
        faults.add("neighbour-duplicate", repeated.sum(axis=1), owner, level)


def _used(neighbours: Words, degrees: Words) -> Flags:
    return np.arange(neighbours.shape[1], dtype=np.uint32) < degrees[:, None]


def check_link_records(lists: LinkLists, header: Header, size: int) -> Iterator[Finding]:
    """Findings about the records of a link_lists.bin of ``size`` bytes."""
    if (bad := lists.bad) is not None:
        if bad.truncated:
            found = f"the file ends in the record of element {bad.element}"
            expected = f"{header.count} records"
            yield finding("link-lists-truncated", header.count - bad.element, (), expected, found)
        else:
            found = f"a record of {bad.size} bytes for element {bad.element} at byte {bad.offset}"
            expected = f"a multiple of {header.link_list_bytes}"
            yield finding("link-lists-invalid", 1, [f"element {bad.element}"], expected, found)
        return
    if size > lists.used_bytes:
        yield finding("file-oversized", 1, ["link_lists.bin"], lists.used_bytes, size)


def check_entry_point(
    header: Header, lists: LinkLists | None, faults: LinkFaults
) -> Iterator[Finding]:
    """The entry point must reach the highest level there is, and have links that lead on.

    An element gets links when it is added, unless it is the first, which gets them with the
    second.
    """
    entry, top = header.enterpoint_node, header.maxlevel
    if header.count == 0:
        if (entry, top) != (NO_ENTRY_POINT, -1):
            found = f"element {entry} at level {top}"
            yield finding("entry-point-invalid", 1, (), "none, the index is empty", found)
        return
    if entry >= header.count:
        expected = f"an element below {header.count}"
        yield finding("entry-point-invalid", 1, (), expected, f"element {entry}")
        return
    if lists is None or lists.bad is not None:
        return
    highest = int(lists.levels.max())
    reached = int(lists.levels[entry])
    if not (top == highest == reached):
        expected = f"an element of level {highest}, and maxlevel {highest}"
        found = f"element {entry} of level {reached}, and maxlevel {top}"
        yield finding("entry-point-invalid", 1, (), expected, found)
    elif header.count > 1 and not faults.entry_links:
        found = f"element {entry} without any link: every search ends there"
        yield finding("entry-point-invalid", 1, (), "links to other elements", found)
