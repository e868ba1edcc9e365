"""hnswlib's own format: a whole index in one file, and how Chroma's files come of it.

The header without its version, the elements of level 0, the records of the upper links: byte for
byte what Chroma keeps in three files. Its fork, chroma-hnswlib, puts the norms between the last
two. Source: ``saveIndex`` in nmslib/hnswlib and in chroma-core/hnswlib, ``hnswlib/hnswalg.h``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hnswcheck.errors import FormatError
from hnswcheck.formats.header import LAYOUT, PERSISTENCE_VERSION, Header, pack_header, parse_header
from hnswcheck.formats.level0 import CHUNK_BYTES, TOMBSTONE, read_elements
from hnswcheck.formats.link_lists import read_link_lists
from hnswcheck.formats.segment_files import HEADER, LENGTH, LEVEL0, LINKS, NORM_BYTES

#: Bytes of header.bin that hnswlib's own format lacks: the persistence version.
VERSION_BYTES = 4
HEADER_BYTES = LAYOUT.size - VERSION_BYTES


def read_header(path: Path) -> Header:
    """The header of a saved index.

    Raises:
        FormatError: there is none, or one that contradicts itself.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(HEADER_BYTES)
    header = parse_header(PERSISTENCE_VERSION.to_bytes(VERSION_BYTES, "little") + data)
    if wrong := header.contradictions():
        raise FormatError(f"{path.name}: {wrong[0]}")
    return header


def split_index(
    path: Path,
    header: Header,
    capacity: int,
    norms: NDArray[np.float32],
    has_norms: bool,
    targets: Mapping[str, BinaryIO],
) -> None:
    """Write Chroma's four files of a saved index whose labels are 1 to ``count``.

    Memory is one chunk and a byte per element.

    Args:
        header: what :func:`read_header` found.
        capacity: what header.bin shall say instead of the saved index's own.
        norms: float32 (count,), by label from 1; length.bin has them by element.
        has_norms: the file has norms as well, as the fork writes them.
        targets: the four files by name, open for writing.

    Raises:
        FormatError: the file ends early, or holds other elements.
        OSError: it cannot be read, or they not be written.
    """
    targets[HEADER].write(pack_header(replace(header, max_elements=capacity)))
    seen = np.zeros(header.count, bool)
    for chunk in read_elements(path, header, header.count, HEADER_BYTES):
        element = chunk.elements["label"] - np.uint64(1)  # label 0 becomes the largest number
        if element.max() >= header.count or (chunk.elements["flags"] & TOMBSTONE).any():
            raise FormatError(f"{path.name} has elements that were not added")
        seen[element] = True
        targets[LEVEL0].write(chunk.elements.view(np.uint8).data)
        targets[LENGTH].write(norms[element].astype("<f4", copy=False).data)
    if not seen.all():
        raise FormatError(f"{path.name} lacks {np.count_nonzero(~seen)} elements")
    with path.open("rb") as file:
        skipped = NORM_BYTES * header.count if has_norms else 0
        file.seek(HEADER_BYTES + header.count * header.stride + skipped)
        shutil.copyfileobj(file, targets[LINKS], CHUNK_BYTES)


def check_links(path: Path, header: Header) -> None:
    """Check a link_lists.bin that was split off: nothing else tells that saving was cut short.

    Raises:
        FormatError: it does not hold one record per element, or more than that.
        OSError: it cannot be read.
    """
    links = read_link_lists(path, header)
    if links.bad is not None or links.used_bytes != path.stat().st_size:
        raise FormatError(f"{path.name} does not hold {header.count} records")
