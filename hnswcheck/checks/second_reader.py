"""A second reader: does hnswlib itself load the segment, and read what we read?

The four files become the one file that PyPI's ``hnswlib`` loads (the same fields and records, see
``saveIndex`` in nmslib/hnswlib, ``hnswlib/hnswalg.h``), in a process that may die of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np

from hnswcheck.engines.hnswlib import (
    BYTES_PER_SECOND,
    FIXED_MEMORY,
    FIXED_SECONDS,
    MEMORY_PER_BYTE,
    NotAsked,
    ask_hnswlib,
    has_hnswlib,
    write_hnswlib_file,
)
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.header import LAYOUT, Header
from hnswcheck.formats.hnswlib_file import VERSION_BYTES
from hnswcheck.formats.labels import find_labels
from hnswcheck.formats.level0 import Elements, read_vectors
from hnswcheck.formats.link_lists import LinkLists
from hnswcheck.formats.segment_files import LEVEL0
from hnswcheck.report import Finding, finding
from hnswcheck.store.scratch import scratch_directory
from hnswcheck.store.segment import Advance, SegmentFolder

#: So many elements are asked for and searched for.
SAMPLE = 256


def check_with_second_reader(
    folder: SegmentFolder,
    header: Header,
    elements: Elements,
    links: LinkLists,
    space: str,
    advance: Advance,
) -> Iterator[Finding]:
    """Findings of loading a segment into hnswlib.

    Raises:
        NotAsked: it is not installed, or there is no room for it.
        OSError: files could not be read.
    """
    if not header.count:
        return
    if not has_hnswlib():
        raise NotAsked(
            "hnswlib is not installed; install it with: pip install 'hnswcheck[hnswlib]'"
        )
    size = LAYOUT.size - VERSION_BYTES + header.count * header.stride + links.used_bytes
    sample = _sample(elements)
    with scratch_directory(folder.path.parent) as scratch:
        if size > shutil.disk_usage(scratch).free // 2:
            raise NotAsked(f"{size} bytes of scratch space are needed")
        path = scratch / "index.bin"
        write_hnswlib_file(folder, header, links, path, advance)
        job = {
            "path": str(path),
            "space": space,
            "dimension": header.dimension,
            "count": header.count,
            "labels": elements.labels[sample].tolist(),
            "memory": FIXED_MEMORY + MEMORY_PER_BYTE * size,
        }
        answer = ask_hnswlib(job, FIXED_SECONDS + size / BYTES_PER_SECOND)
        if isinstance(answer, str):
            yield finding("second-reader-disagrees", 1, (), "an index that hnswlib loads", answer)
            return
        labels = np.fromfile(f"{path}.labels", np.uint64)
        differing = [] if np.array_equal(labels, np.unique(elements.labels)) else ["labels"]
        if answer["count"] != header.count:
            differing.append("count")
        if len(sample):
            items = np.fromfile(f"{path}.items", np.float32).reshape(len(sample), -1)
            ours = read_vectors(folder.path / LEVEL0, header, sample)
            if items.tobytes() != ours.tobytes():
                differing.append("vectors")
    if differing:
        yield finding("second-reader-disagrees", len(differing), differing)
    missed = len(sample) - answer["found"]
    if missed and space != "ip":
        found = f"{missed / len(sample):.1%} of {len(sample)} searches for their own vector"
        yield finding("searches-miss", missed, (), "none, or a few", found)


def _sample(elements: Elements) -> Ints:
    """Live elements, evenly spread, whose label no other has."""
    own = find_labels(elements.labels, elements.labels) == np.arange(len(elements.labels))
    live = np.flatnonzero(own & ~elements.tombstoned)
    return (
        live[np.unique(np.linspace(0, len(live) - 1, SAMPLE).astype(np.int64))]
        if len(live)
        else live
    )
