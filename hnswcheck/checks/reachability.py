"""Can a search get from the entry point to every element?

Sound indexes have a few elements that it cannot: hnswlib prunes links without looking who else
points at an element. So this is a rate and a warning, never damage.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.formats.header import Header
from hnswcheck.formats.level0 import Chunk
from hnswcheck.formats.link_lists import LinkLists
from hnswcheck.report import Finding, finding

#: Elements whose links are followed at a time: bounds the copies.
FRONT = 1 << 14


class Graph:
    """The links of an index, filled chunk by chunk.

    Attributes:
        neighbours: uint32 (count, maxM0): at level 0; unused places hold the element itself.
        live: bool (count,).
    """

    def __init__(self, header: Header) -> None:
        self.header = header
        self.neighbours: NDArray[np.uint32] = np.zeros((header.count, header.max_m0), np.uint32)
        self.live: Flags = np.zeros(header.count, bool)

    def visit(self, chunk: Chunk) -> None:
        """Take over the links of some elements."""
        after = chunk.first + len(chunk.elements)
        owner = np.arange(chunk.first, after, dtype=np.uint32)[:, None]
        links = chunk.elements["neighbours"]
        used = np.arange(links.shape[1]) < chunk.elements["degree"][:, None]
        used &= links < self.header.count
        self.neighbours[chunk.first : after] = np.where(used, links, owner)
        self.live[chunk.first : after] = chunk.elements["flags"] & 1 == 0

    def reached(self, lists: LinkLists) -> Flags:
        """bool (count,): elements that links lead to from the entry point, over all levels."""
        seen = np.zeros(self.header.count, bool)
        front: Ints = np.array([self.header.enterpoint_node])
        begin = np.searchsorted(lists.owner, np.arange(self.header.count + 1))
        while len(front):
            seen[front] = True
            found = np.zeros(self.header.count, bool)
            for i in range(0, len(front), FRONT):
                found[self.neighbours[front[i : i + FRONT]]] = True
            above = front[begin[front] < begin[front + 1]]
            rows = np.concatenate([np.arange(begin[e], begin[e + 1]) for e in above] or [above])
            links = lists.neighbours[rows]
            used = np.arange(links.shape[1]) < lists.degrees[rows][:, None]
            links = links[used]
            found[links[links < self.header.count]] = True
            front = np.flatnonzero(found & ~seen)
        return seen


def check_reach(graph: Graph, lists: LinkLists) -> Iterator[Finding]:
    """How many live elements no search can arrive at."""
    if not graph.header.count or graph.header.enterpoint_node >= graph.header.count:
        return
    lost = np.flatnonzero(graph.live & ~graph.reached(lists))
    if len(lost):
        live = int(np.count_nonzero(graph.live))
        found = f"{len(lost) / live:.2%} of {live:,} live elements"
        yield finding("elements-unreachable", len(lost), (), "none, or a few", found)
