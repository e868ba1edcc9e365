"""Are the files of a segment there, and as long as their header says?"""

from __future__ import annotations

from collections.abc import Iterator

from hnswcheck.formats.header import LAYOUT, Header
from hnswcheck.formats.segment_files import HEADER, INDEX_FILES, LENGTH, LEVEL0, NORM_BYTES
from hnswcheck.kinds import FindingId
from hnswcheck.report import Finding, finding
from hnswcheck.store.segment import SegmentFolder

#: Chroma 1.x makes room for so many elements when it loads an index, or for its capacity if the
#: index has more.
SMALLEST_LOAD = 100
#: Elements are counted in 32 bits, and room is made for twice as many at the most.
LARGEST_CAPACITY = 1 << 33
#: Distances that never read length.bin.
WITHOUT_NORMS = ("l2", "ip")
#: File systems round up and preallocate; a file that a torn write blew up is far beyond this.
ALLOCATION_SLACK = 64 << 20


def check_files(folder: SegmentFolder, dimension: int | None, space: str) -> Iterator[Finding]:
    """Findings about presence and sizes, against the collection's dimension and distance."""
    if folder.irregular:
        names = folder.irregular
        yield finding("segment-path-unsafe", len(names), names, "regular files")
        return
    if not folder.states:
        return
    missing = [name for name in INDEX_FILES if name not in folder.states]
    if missing:
        yield finding("file-missing", len(missing), missing)
    if folder.contradictions:
        yield finding("header-invalid", len(folder.contradictions), folder.contradictions)
    elif folder.header is not None:
        yield from _check_sizes(folder, folder.header, space)
        if dimension is not None and folder.header.dimension != dimension:
            found = folder.header.dimension
            yield finding("header-dimension-mismatch", 1, (), dimension, found)
    elif HEADER in folder.states:
        size = folder.states[HEADER].size
        yield finding("file-truncated", 1, [HEADER], LAYOUT.size, size)
    yield from _check_allocation(folder)


def check_symlinks(folder: SegmentFolder) -> Iterator[Finding]:
    """A folder or file that lies elsewhere: Chroma goes on with it, a copy may not."""
    if folder.links:
        yield finding("segment-symlinked", len(folder.links), folder.links)


def _check_sizes(folder: SegmentFolder, header: Header, space: str) -> Iterator[Finding]:
    if header.count > header.capacity:
        expected = f"at most {header.capacity}, the capacity"
        yield finding("header-count-impossible", 1, (), expected, header.count)
        return
    if header.count > SMALLEST_LOAD and header.capacity > LARGEST_CAPACITY:
        expected = f"a capacity of at most {LARGEST_CAPACITY}"
        yield finding("header-count-impossible", 1, (), expected, header.capacity)
        return
    needed = {LEVEL0: header.count * header.stride, LENGTH: header.count * NORM_BYTES}
    sizes = {name: folder.states[name].size for name in needed if name in folder.states}
    short = [name for name, size in sizes.items() if size < needed[name]]
    if len(short) == len(needed):
        held = min(folder.held, sizes[LENGTH] // NORM_BYTES)
        expected = f"at most {held}, the number that the files hold"
        yield finding("header-count-impossible", 1, (), expected, header.count)
        return
    for name in short:
        used = name != LENGTH or space not in WITHOUT_NORMS
        kind: FindingId = "file-truncated" if used else "norms-truncated"
        yield finding(kind, 1, [name], needed[name], sizes[name])


def _check_allocation(folder: SegmentFolder) -> Iterator[Finding]:
    states = folder.states.values()
    large = [s for s in states if s.allocated > 2 * s.size + ALLOCATION_SLACK]
    if large:
        expected = f"{sum(s.size for s in large)} bytes"
        found = f"{sum(s.allocated for s in large)} bytes on disk"
        yield finding("file-oversized", len(large), [s.name for s in large], expected, found)
