"""How a collection's index is to be built, in the way of each line of Chroma's releases.

Sizes and seeds are those of chromadb/segment/impl/vector/local_hnsw.py and local_persistent_hnsw.py
(0.x), rust/segment/src/local_hnsw.rs and rust/index/src/hnsw.rs (1.x) in chroma-core/chroma.
"""

from __future__ import annotations

from dataclasses import dataclass

from hnswcheck.errors import UsageError
from hnswcheck.formats.header import LARGEST_ELEMENT, LAYOUT
from hnswcheck.formats.segment_files import NORM_BYTES
from hnswcheck.store.releases import (
    DEFAULT_EF_CONSTRUCTION,
    DEFAULT_M,
    DEFAULT_RESIZE_FACTOR,
    RELEASES,
    Release,
)

#: hnswlib's space for each of Chroma's. Under cosine, too, it is given what it shall store:
#: vectors that are normalised already, so that their norms are known.
SPACES = {"l2": "l2", "ip": "ip", "cosine": "ip"}

#: Labels fit into an i32 of the id map; M into the degree of 16 bits at twice its size.
LARGEST_COUNT, LARGEST_M = (1 << 31) - 1, 10_000

#: Vectors handed to hnswlib at a time: enough that its threads seldom wait for the last of them.
BLOCK_BYTES, BLOCK_ROWS = 8 << 20, 16_384

#: What hnswlib keeps per element besides its file: a lock of 40 bytes, the level, a pointer to the
#: links, a node and a bucket of the table of labels.
FIXED_MEMORY, MEMORY_PER_ELEMENT = 32 << 20, 40 + 4 + 8 + 48

#: What an allocation of links takes besides them.
MEMORY_PER_LINKS = 16

#: What the maps have per id besides the ids themselves, which come at most twice.
USUAL_ID_BYTES, ID_MAP_BYTES = 36, 40


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """The settings of a collection that its index has to have.

    Attributes:
        space: "l2", "cosine" or "ip".
        threads: that build it; 0 for as many as there are processors.
        line: one of :data:`RELEASES`.
        resize_factor: by which some lines let an index grow.

    Raises:
        UsageError: there can be no such index.
    """

    space: str
    dimension: int
    line: str
    m: int = DEFAULT_M
    ef_construction: int = DEFAULT_EF_CONSTRUCTION
    threads: int = 0
    resize_factor: float = DEFAULT_RESIZE_FACTOR

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise UsageError(f"unknown space {self.space!r}: one of {', '.join(SPACES)}")
        if self.line not in RELEASES:
            raise UsageError(f"unknown line {self.line!r}: one of {', '.join(RELEASES)}")
        if not 2 <= self.m <= LARGEST_M:
            raise UsageError(f"M is {self.m}; hnswlib builds indexes with 2 to {LARGEST_M}")
        if self.dimension < 1 or stride(self.dimension, self.m) > LARGEST_ELEMENT:
            raise UsageError(f"vectors of {self.dimension} dimensions cannot be indexed")
        if self.ef_construction < 0 or self.threads < 0:
            raise UsageError("ef_construction and the number of threads must not be negative")

    @property
    def made_by(self) -> Release:
        """The line of Chroma whose ways are followed."""
        return RELEASES[self.line]


def stride(dimension: int, m: int) -> int:
    """Bytes per element in data_level0.bin: links, vector, label."""
    return 4 + 4 * 2 * m + 4 * dimension + 8


def estimate(count: int, dimension: int, m: int, id_bytes: int | None = None) -> tuple[int, int]:
    """(memory, disk) in bytes that building a segment needs at most, for ``count`` records.

    Disk is that of folder and scratch file together; the folder alone takes about half of it.

    Args:
        id_bytes: of all ids; that of UUIDs by default.
    """
    ids = USUAL_ID_BYTES * count if id_bytes is None else id_bytes
    lists = count // (m - 1) + 1  # an element reaches level l with a chance of m ** -l
    links = NORM_BYTES * count + lists * (4 + 4 * m)
    index = count * stride(dimension, m) + links
    memory = index + count * (MEMORY_PER_ELEMENT + NORM_BYTES) + lists * MEMORY_PER_LINKS
    block = min(BLOCK_BYTES, BLOCK_ROWS * 4 * dimension)
    disk = 2 * (index + LAYOUT.size) + NORM_BYTES * count + 2 * ids + ID_MAP_BYTES * count
    return memory + ids + 2 * block + FIXED_MEMORY, disk + (disk >> 6)
