"""What can still be read of a segment folder: vectors without a header, half an id map.

Proves nothing yet. A lost header is inferred from the collection's settings, and believed only if
the labels that it shows are labels as an index hands them out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hnswcheck.formats.arrays import Flags, Floats, Ints, Labels
from hnswcheck.formats.header import Header, shaped
from hnswcheck.formats.id_map import IdMap, Pairs
from hnswcheck.formats.labels import find_labels, repeated_labels
from hnswcheck.formats.level0 import Elements, read_vectors
from hnswcheck.formats.segment_files import LENGTH, LEVEL0, LINKS
from hnswcheck.store.catalog import Collection
from hnswcheck.store.files import unreadable
from hnswcheck.store.releases import DEFAULT_M
from hnswcheck.store.segment import SegmentFolder, open_segment
from hnswcheck.store.settings import DeclaredSettings

NONE = np.zeros(0, np.int64)
#: Of so many labels per element at most every other one was deleted and purged.
LIKELY = 1 << 10
#: So long a data_level0.bin is believed to be one, whatever it takes on the disk, and so many times
#: what it takes.
MOST_BYTES, MOST_COMPRESSED = 1 << 28, 32
#: A loss of power leaves whole ones.
SECTOR = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedSegment:
    """A segment folder as far as it can be read.

    Attributes:
        header: its own, or one that fits the elements.
        norms: float32 (held,): of the elements, under cosine.
        known_norms: so many of them are there; the others count as 1, which cosine does not see.
        lacking: so many elements more are in the header's count.
        beyond: it has more elements than its header counts, so that that is older.
        torn: data_level0.bin ends where neither an older one would, nor what a loss of power left.
        relabelled: bool (held,): damage changed the label of this element, or of one of these.
        pages_lost: an element between others has no label, as where a page was never written.
        room: data_level0.bin is long enough for so many elements.
        earlier: so many elements has link_lists.bin, if it ends where an older file does: a loss of
            power may have kept pages of other files from before, too; else 0.
    """

    path: Path
    header: Header
    elements: Elements
    norms: Floats | None
    known_norms: int
    lacking: int
    beyond: bool
    torn: bool
    relabelled: Flags
    pages_lost: bool
    room: int
    earlier: int

    @property
    def label_twice(self) -> Flags:
        """bool (held,): another element carries the same label, or did until it was righted.

        An index lacks one label if damage changed one: the changed one is then impossible, which
        leaves one element to right, or it is another's, which leaves two.
        """
        labels = self.elements.labels
        twice = np.isin(labels, repeated_labels(labels))
        return twice | self.relabelled if np.count_nonzero(self.relabelled) > 1 else twice

    def vectors(self, elements: Ints) -> Floats:
        """float32 (k, dimension): vectors of some elements, as they were added."""
        found = read_vectors(self.path / LEVEL0, self.header, elements)
        with np.errstate(all="ignore"):  # damage may have left any number
            return found if self.norms is None else found * self.norms[elements, None]


def open_damaged_segment(
    path: Path, collection: Collection, settings: Callable[[], DeclaredSettings]
) -> tuple[DamagedSegment, IdMap | None] | None:
    """A folder and what is left of its id map; None where it has no element that can be read.

    Args:
        settings: reads them, for an index whose header is gone.

    Raises:
        StoreUnreadable: the operating system will not let us.
        StoreChanged: a file became shorter meanwhile.
    """
    dimension, space = collection.dimension, collection.space
    assert dimension is not None
    segment = open_segment(path)
    if segment.irregular or LEVEL0 not in segment.states:
        return None
    id_map = segment.read_id_map()
    if segment.header is None:
        segment = _with_guessed_header(segment, dimension, settings(), id_map)
    header = segment.header
    if header is None or header.dimension != dimension:
        return None
    counted, size = header.count, segment.states[LEVEL0].size
    earlier = _earlier(segment)
    used = _used(segment, header, id_map)
    segment, elements = used.segment, used.elements
    try:
        norms, known = segment.read_norms() if space == "cosine" else (None, 0)
    except OSError as error:
        raise unreadable(path / LENGTH, error) from error
    lacking = max(0, counted - len(elements.labels))
    torn = counted * header.stride > size and bool(size % header.stride and size % SECTOR)
    assert segment.header
    folder = DamagedSegment(
        path=path,
        header=segment.header,
        elements=elements,
        norms=norms,
        known_norms=known,
        lacking=lacking,
        beyond=used.beyond,
        torn=torn,
        relabelled=used.relabelled,
        pages_lost=used.pages_lost,
        room=size // header.stride,
        earlier=earlier,
    )
    return folder, id_map


def _earlier(segment: SegmentFolder) -> int:
    """How many elements an older link_lists.bin is of; 0 if it is none."""
    links = segment.read_links()
    if links is None or links.bad is None or links.used_bytes != segment.states[LINKS].size:
        return 0
    return links.bad.element


class _Used(NamedTuple):
    """The elements that were ever used.

    With the segment under a header that counts these, and what else :class:`DamagedSegment` says.
    """

    segment: SegmentFolder
    elements: Elements
    relabelled: Flags
    pages_lost: bool
    beyond: bool


def _used(segment: SegmentFolder, header: Header, id_map: IdMap | None) -> _Used:
    """Elements with a label, as labels begin at 1: without one, it is room for an element.

    If the id map counts more than the header, and all their labels are there, the header is wrong.
    """
    most = segment.states[LEVEL0].solid_size(MOST_BYTES, MOST_COMPRESSED) // header.stride
    total = min((id_map.total_elements_added if id_map else None) or 0, most)
    count = max(header.count, total) + 1
    elements = replace(segment, header=replace(header, cur_element_count=count)).read_elements()
    assert elements is not None
    labels = elements.labels
    held = min(header.count, len(labels))
    relabelled, empty = np.zeros(len(labels), bool), labels == 0
    if held == header.count == total:  # else an older header, or fewer elements, explain them
        labels[:held], relabelled[:held] = _relabelled(labels[:held])
    used = int(np.flatnonzero(labels[:held])[-1]) + 1 if labels[:held].any() else 0
    if held < total <= len(labels):
        every = np.arange(1, total + 1, dtype=np.uint64)
        used = total if np.array_equal(np.sort(labels[:total]), every) else used
    segment = replace(segment, header=replace(header, cur_element_count=used))
    more = len(labels) > used and 0 < int(labels[used]) <= LIKELY * used
    kept = Elements(labels[:used], elements.tombstoned[:used])
    beyond = used > header.count or more
    return _Used(segment, kept, relabelled[:used], bool(empty[:used].any()), beyond)


def _relabelled(labels: Labels) -> tuple[Labels, Flags]:
    """The labels as they were before damage changed one of them; which elements may have that one.

    An index hands them out from 1, each once. So the one that none has is that of the element with
    an impossible label, or else of one of the two with the same: most likely of that nearer to
    where it was handed out, as elements are added in about the order of their labels.
    """
    possible = (labels > 0) & (labels <= len(labels))
    times = np.bincount(labels[possible].astype(np.int64), minlength=len(labels) + 1)
    absent = np.flatnonzero(times[1:] == 0) + 1
    if len(absent) != 1:
        return labels, np.zeros(len(labels), bool)
    changed = ~possible
    changed[possible] = times[labels[possible].astype(np.int64)] > 1
    places = np.flatnonzero(changed)
    righted = labels.copy()
    righted[places[np.argmin(np.abs(places + 1 - absent))]] = absent[0]
    return righted, changed


def _with_guessed_header(
    segment: SegmentFolder, dimension: int, settings: DeclaredSettings, id_map: IdMap | None
) -> SegmentFolder:
    """With the header that the collection's settings would give, if the elements bear it out.

    Labels are handed out from 1, each once; read at the wrong places they would be anything.
    """
    size = segment.states[LEVEL0].solid_size(MOST_BYTES, MOST_COMPRESSED)
    total = (id_map.total_elements_added if id_map else None) or size
    best = segment
    for m in dict.fromkeys((settings.m, DEFAULT_M)):
        stride = shaped(dimension, m, settings.ef_construction, 0).stride
        header = shaped(dimension, m, settings.ef_construction, size // stride)
        guess = replace(segment, header=header, contradictions=())
        elements = guess.read_elements()
        used = min(_labelled(elements.labels), total) if elements else 0
        if used > best.count:
            best = replace(guess, header=replace(header, cur_element_count=used))
    return best


def _labelled(labels: Labels) -> int:
    """So many elements at the beginning have labels as an index hands them out.

    0.x writes the whole capacity of an index, and behind its elements whatever memory held.
    """
    first = len(labels) - 1 - find_labels(labels[::-1], labels)
    fresh = first == np.arange(len(labels))
    fits = fresh & (labels > 0) & (labels <= LIKELY * len(labels))
    used = len(fits) if fits.all() else int(np.argmin(fits))
    return used if used and int(labels[:used].max()) <= LIKELY * used else 0


def better_half(id_map: IdMap) -> IdMap:
    """With the longer of the two maps of a file that is cut or contradicts itself.

    One that is cut after the first map lacks nothing.
    """
    if id_map.problem is None:
        return id_map
    nothing = Pairs(id_map.id_to_label.ids.take(NONE), NONE)
    if id_map.ids_whole:
        return replace(id_map, label_to_id=nothing, problem=None)
    if len(id_map.id_to_label.ids) >= len(id_map.label_to_id.ids):
        return replace(id_map, label_to_id=nothing)
    return replace(id_map, id_to_label=id_map.label_to_id, label_to_id=nothing)
