"""Would the next Chroma load this index?

Open pull requests of chroma-core/chroma validate an index before they load it
(``validate_files_with_construction`` in rust/segment/src/local_hnsw/persistence.rs there). Most of
what they refuse is damage for every release; here is the rest, which releases up to 1.5.9 load.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hnswcheck.formats.header import NO_ENTRY_POINT, Header
from hnswcheck.formats.id_map import LARGEST_LABEL
from hnswcheck.formats.level0 import Elements
from hnswcheck.report import Finding, finding

LARGEST_EF_CONSTRUCTION, SMALLEST_M, LARGEST_M, HIGHEST_LEVEL = 4096, 2, 10_000, 2048
#: ``1 / ln(M)`` may differ by so much.
MULT_TOLERANCE = 1e-12
#: Room for so many elements is always granted, and for so many times those that there are.
GRANTED_CAPACITY, GRANTED_TIMES = 1000, 10


def largest_capacity(count: int) -> int:
    """Elements that an index of ``count`` may have room for."""
    return max(GRANTED_CAPACITY, GRANTED_TIMES * count)


def check_next_load(header: Header, elements: Elements | None) -> Iterator[Finding]:
    """The rules that an index breaks, in one finding.

    Args:
        header: of an index that has an id map.
        elements: None where they were not read.
    """
    broken = [*_by_header(header), *(_by_labels(elements) if elements else ())]
    if broken:
        yield finding("next-load-refused", len(broken), broken)


def _by_header(header: Header) -> Iterator[str]:
    if not 1 <= header.ef_construction <= LARGEST_EF_CONSTRUCTION:
        yield f"ef_construction is {header.ef_construction}, not 1 to {LARGEST_EF_CONSTRUCTION}"
    if not SMALLEST_M <= header.m <= LARGEST_M:
        yield f"M is {header.m}, not {SMALLEST_M} to {LARGEST_M}"
    elif abs(header.mult - 1 / math.log(header.m)) > MULT_TOLERANCE:
        yield f"mult is {header.mult}, not 1/ln({header.m})"
    if header.capacity > largest_capacity(header.count):
        most = largest_capacity(header.count)
        yield f"the capacity is {header.capacity}, at most {most} for {header.count} elements"
    if header.maxlevel > HIGHEST_LEVEL:
        yield f"the highest level is {header.maxlevel}, at most {HIGHEST_LEVEL}"
    if not header.count and (header.maxlevel, header.enterpoint_node) != (-1, NO_ENTRY_POINT):
        yield "an index without elements has a level or an entry point"


def _by_labels(elements: Elements) -> Iterator[str]:
    wrong = (elements.labels == 0) | (elements.labels > np.uint64(LARGEST_LABEL))
    if wrong.any():
        yield f"{int(np.count_nonzero(wrong))} labels are not 1 to {LARGEST_LABEL}"
