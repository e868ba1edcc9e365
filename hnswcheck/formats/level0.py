"""data_level0.bin: one fixed-size element after the other.

Source of the layout: ``get_linklist0``, ``getExternalLabel``, ``markDeletedInternal`` and the
constructor of ``HierarchicalNSW`` in chroma-core/hnswlib, ``hnswlib/hnswalg.h``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hnswcheck.errors import FormatError
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.header import Header

TOMBSTONE = 0x01
#: Bytes read at a time. Large enough that calls do not show, small enough to stay in the cache.
CHUNK_BYTES = 1 << 20


def element_dtype(header: Header) -> np.dtype[np.void]:
    """One element: degree, flags, maxM0 neighbours, the vector, the label."""
    return np.dtype(
        {
            "names": ["degree", "flags", "neighbours", "vector", "label"],
            "formats": [
                "<u2",
                "u1",
                ("<u4", (header.max_m0,)),
                ("<f4", (header.dimension,)),
                "<u8",
            ],
            "offsets": [0, 2, 4, header.offset_data, header.label_offset],
            "itemsize": header.stride,
        }
    )


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some consecutive elements; the array is overwritten by the next chunk.

    Attributes:
        first: the element (internal id) that ``elements[0]`` is.
        elements: structured array of :func:`element_dtype`.
    """

    first: int
    elements: NDArray[np.void]


@dataclass(frozen=True, slots=True)
class Elements:
    """Labels and delete marks of elements, by internal id.

    Attributes:
        labels: uint64 (n,).
        tombstoned: bool (n,).
    """

    labels: NDArray[np.uint64]
    tombstoned: NDArray[np.bool_]

    @property
    def tombstones(self) -> int:
        """How many elements are marked deleted."""
        return int(np.count_nonzero(self.tombstoned))

    @property
    def live(self) -> int:
        """How many are not."""
        return len(self.labels) - self.tombstones


def read_elements(path: Path, header: Header, count: int, start: int = 0) -> Iterator[Chunk]:
    """The first ``count`` elements, in chunks; they begin at byte ``start`` of the file.

    The caller has checked that the header is sound and that the file is long enough; memory is
    one chunk, or one element where that is larger.

    Raises:
        FormatError: the file ends before the last element.
        OSError: the file cannot be read.
    """
    dtype = element_dtype(header)
    size = max(1, min(count, CHUNK_BYTES // header.stride))
    buffer = np.empty(size, dtype)
    with FileIO(path) as file:
        file.seek(start)
        for first in range(0, count, size):
            chunk = buffer[: min(size, count - first)]
            if not _fill(file, chunk.view(np.uint8).data):
                raise FormatError(f"{path.name} ends within element {first + len(chunk) - 1}")
            yield Chunk(first, chunk)


def read_vectors(path: Path, header: Header, elements: Ints) -> NDArray[np.float32]:
    """float32 (k, dimension): the vectors of some elements, one read each.

    Raises:
        FormatError: the file ends before one of them.
        OSError: the file cannot be read.
    """
    vectors = np.empty((len(elements), header.dimension), np.float32)
    with FileIO(path) as file:
        for row, element in zip(vectors, elements.tolist(), strict=True):
            file.seek(element * header.stride + header.offset_data)
            if not _fill(file, row.view(np.uint8).data):
                raise FormatError(f"{path.name} ends within element {element}")
    return vectors


def _fill(file: FileIO, view: memoryview) -> bool:
    """Read until the view is full; False at the end of the file."""
    filled = 0
    while filled < len(view):
        got = file.readinto(view[filled:])
        if not got:
            return False
        filled += got
    return True
