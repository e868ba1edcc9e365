"""link_lists.bin: the links of the elements that reach above level 0.

One record per element, in order: a u32 byte length, then that many bytes of link lists, lowest
level first; each list is a word with the degree and maxM u32 neighbours, so an element at level l
has l lists. Source: ``persistDirty`` and ``loadLinkLists`` in chroma-core/hnswlib,
``hnswlib/hnswalg.h``. Every length in a sound file is a multiple of four, so the file is read as
one array of words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hnswcheck.formats.arrays import Ints, Words
from hnswcheck.formats.header import HIGHEST_LEVEL, Header

#: The loader takes only these bits of the word as the degree (``getListCount``).
DEGREE_BITS = np.uint32(0xFFFF)

#: Bytes read before the records have shown how long they are: a fixed part and one per element.
#: With M = 16, one element in 16 has lists above level 0, which makes 8.5 bytes per element.
FIRST_READ, USUAL_BYTES = 1 << 16, 12


@dataclass(frozen=True, slots=True)
class BadRecord:
    """The first record that cannot be one.

    Attributes:
        element: whose record it is.
        offset: byte offset of the record in the file.
        size: its byte length as written.
        truncated: the file ends inside it (else the length itself is impossible).
    """

    element: int
    offset: int
    size: int
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLists:
    """All upper-level link lists, up to the first bad record.

    Attributes:
        levels: uint8 (count,): the level that each element reaches.
        owner: int64 (lists,): the element that each list belongs to.
        level: int64 (lists,): the level of each list, from 1.
        degrees: uint32 (lists,).
        neighbours: uint32 (lists, maxM).
        used_bytes: bytes that the records take.
        bad: the record where reading had to stop, if any.
    """

    levels: NDArray[np.uint8]
    owner: Ints
    level: Ints
    degrees: Words
    neighbours: Words
    used_bytes: int
    bad: BadRecord | None


def read_link_lists(path: Path, header: Header) -> LinkLists:
    """Read the records of ``header.count`` elements.

    Memory follows what the records take, not the size of the file: a file that a torn record
    made huge is read only as far as its records make sense.

    Raises:
        OSError: the file cannot be read.
    """
    limit = FIRST_READ + USUAL_BYTES * header.count
    with path.open("rb") as file:
        available = file.seek(0, 2)
        while True:
            file.seek(0)
            words = np.fromfile(file, "<u4", count=min(limit, available) // 4)
            lists = _parse(words, header)
            if lists.bad is None or not lists.bad.truncated or limit >= available:
                return lists
            limit *= 4


def _parse(words: Words, header: Header) -> LinkLists:
    count, width = header.count, header.link_list_bytes
    start = _nonzero_records(words)
    size = words[start].astype(np.int64)
    after = start + 1 + size // 4
    # Every zero word between two such records is a record, too: an element of level 0.
    skipped = start - np.concatenate(([0], after[:-1])) if len(start) else start
    element = np.arange(len(start)) + np.cumsum(skipped)
    level, remainder = np.divmod(size, width)
    impossible = (remainder != 0) | (level > HIGHEST_LEVEL)
    stops = np.flatnonzero((element >= count) | impossible | (after > len(words)))
    good = int(stops[0]) if len(stops) else len(start)
    used = int(after[good - 1]) if good else 0
    missing = count - (int(element[good - 1]) + 1 if good else 0)
    bad: BadRecord | None = None
    if good < len(start) and element[good] < count:
        first = (int(element[good]), int(start[good]) * 4, int(size[good]))
        bad = BadRecord(*first, truncated=not impossible[good])
        used = int(start[good])
    elif used + missing > len(words):
        bad = BadRecord(count - missing + len(words) - used, len(words) * 4, 0, truncated=True)
        used = len(words)
    else:
        used += missing
    levels = np.zeros(count, np.uint8)
    levels[element[:good]] = level[:good]
    return _lists(words, header, levels, start[:good] + 1, element[:good], used * 4, bad)


def _nonzero_records(words: Words) -> Ints:
    """int64: where the records begin that are not a lone zero, if all lengths are true.

    From each the next is the first nonzero word after its link lists.
    """
    is_nonzero = words != 0
    nonzero = np.flatnonzero(is_nonzero)
    nonzero_before = np.concatenate(([0], np.cumsum(is_nonzero)))
    after = np.minimum(nonzero + 1 + words[nonzero] // 4, len(words))
    following = nonzero_before[after].data
    chain: list[int] = []
    at = 0
    while at < len(following):
        chain.append(at)
        at = following[at]
    return nonzero[chain] if chain else nonzero[:0]


def _lists(
    words: Words,
    header: Header,
    levels: NDArray[np.uint8],
    starts: Ints,
    upper: Ints,
    used_bytes: int,
    bad: BadRecord | None,
) -> LinkLists:
    per_element = levels[upper].astype(np.int64)
    owner = np.repeat(upper, per_element)
    first_list = np.repeat(np.cumsum(per_element) - per_element, per_element)
    level = np.arange(len(owner)) - first_list + 1
    width = header.link_list_bytes // 4
    begins = np.repeat(starts, per_element) + (level - 1) * width
    lists = words[begins[:, None] + np.arange(width)]
    degrees = lists[:, 0] & DEGREE_BITS
    return LinkLists(
        levels=levels,
        owner=owner,
        level=level,
        degrees=degrees,
        neighbours=lists[:, 1:],
        used_bytes=used_bytes,
        bad=bad,
    )
