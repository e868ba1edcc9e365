"""A new segment folder from vectors: what Chroma would have written had it added just these.

hnswlib builds the index and saves it into one file, which is split into Chroma's four
(:mod:`hnswcheck.disk.onefile`). chroma-hnswlib, the fork that chromadb 0.x installs under the same
module name, serves as well: hnswlib's own package must not be installed over it. The sizes and
seeds are those of chromadb/segment/impl/vector/local_hnsw.py and local_persistent_hnsw.py (0.x),
rust/segment/src/local_hnsw.rs and rust/index/src/hnsw.rs (1.x) in chroma-core/chroma.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hnswcheck.actions.durable import new_file, sync_directory
from hnswcheck.disk.header import LARGEST_ELEMENT, LAYOUT
from hnswcheck.disk.idmap import Shape
from hnswcheck.disk.onefile import check_links, read_header, split_index
from hnswcheck.disk.segment import ID_MAP, INDEX_FILES, LINKS, NORM_BYTES
from hnswcheck.disk.strings import Ints, Strings
from hnswcheck.disk.text import path_text
from hnswcheck.disk.write_idmap import write_dict, write_instance
from hnswcheck.errors import (
    ActionFailed,
    EngineMissing,
    FormatError,
    UsageError,
    VectorsNotFinite,
)

Floats = NDArray[np.float32]
Advance = Callable[[int], None]

#: hnswlib's space for each of Chroma's. Under cosine, too, it is given what it shall store:
#: vectors that are normalised already, so that their norms are known.
SPACES = {"l2": "l2", "ip": "ip", "cosine": "ip"}
#: Labels fit into an i32 of the id map; M into the degree of 16 bits at twice its size.
LARGEST_COUNT, LARGEST_M = (1 << 31) - 1, 10_000

#: Vectors handed to hnswlib at a time: enough that its threads seldom wait for the last of them.
BLOCK_BYTES, BLOCK_ROWS = 8 << 20, 16_384
#: Rows normalised at a time, in float64.
NORMALISED_ROWS = 1024
#: ``normalize_vector`` in chroma-core/hnswlib divides by the norm plus this.
ADDED_TO_NORM = 1e-30

#: What hnswlib keeps per element besides its file: a lock of 40 bytes, the level, a pointer to the
#: links, a node and a bucket of the table of labels.
FIXED_MEMORY, MEMORY_PER_ELEMENT = 32 << 20, 40 + 4 + 8 + 48
#: What an allocation of links takes besides them.
MEMORY_PER_LINKS = 16
#: In both maps an id comes with two opcodes of five bytes.
USUAL_ID_BYTES, ID_MAP_BYTES = 36, 2 * (5 + 5)


@dataclass(frozen=True, slots=True)
class Line:
    """What a line of Chroma's releases does in its own way.

    Attributes:
        shape: of the id map.
        capacity: elements that a new index has room for.
        seed: of the levels.
        keeps_watermark: the id map has it.
    """

    shape: Shape
    capacity: int
    seed: int
    keeps_watermark: bool = False

    def capacity_for(self, count: int, resize_factor: float) -> int:
        """Elements that an index of ``count`` has room for."""
        if self.shape == "instance":
            return self.capacity if count <= self.capacity else int(count * resize_factor)
        return self.capacity if count < self.capacity else 1 << (count - 1).bit_length()


LINES = {
    "0.4": Line("instance", 1000, 100, keeps_watermark=True),
    "0.5": Line("instance", 1000, 100),
    "0.6": Line("instance", 1000, 100),
    "1.0": Line("dict", 10_000, 0),
    "1.5": Line("dict", 100, 0),  # since 1.1
}


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """The settings of a collection that its index has to have.

    Attributes:
        space: "l2", "cosine" or "ip".
        threads: that build it; 0 for as many as there are processors.
        line: one of :data:`LINES`.
        resize_factor: by which 0.x lets an index grow.

    Raises:
        UsageError: there can be no such index.
    """

    space: str
    dimension: int
    line: str
    m: int = 16
    ef_construction: int = 100
    threads: int = 0
    resize_factor: float = 1.2

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise UsageError(f"unknown space {self.space!r}: one of {', '.join(SPACES)}")
        if self.line not in LINES:
            raise UsageError(f"unknown line {self.line!r}: one of {', '.join(LINES)}")
        if not 2 <= self.m <= LARGEST_M:
            raise UsageError(f"M is {self.m}; hnswlib builds indexes with 2 to {LARGEST_M}")
        if self.dimension < 1 or stride(self.dimension, self.m) > LARGEST_ELEMENT:
            raise UsageError(f"vectors of {self.dimension} dimensions cannot be indexed")
        if self.ef_construction < 1 or self.threads < 0 or not self.resize_factor >= 1:
            raise UsageError("ef_construction, threads and resize_factor begin at 1, 0 and 1")


def stride(dimension: int, m: int) -> int:
    """Bytes per element in data_level0.bin: links, vector, label."""
    return 4 + 4 * 2 * m + 4 * dimension + 8


def estimate(count: int, dimension: int, m: int, id_bytes: int | None = None) -> tuple[int, int]:
    """(memory, disk) in bytes that :func:`build_segment` needs at most, for ``count`` records.

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


def find_not_finite(vectors: Iterable[Floats]) -> Ints:
    """int64 (k,): the positions of vectors that hold inf or nan."""
    found, first = [np.empty(0, np.int64)], 0
    for chunk in vectors:
        found.append(first + _not_finite(chunk))
        first += len(chunk)
    return np.concatenate(found)


def build_segment(
    folder: Path,
    vectors: Iterable[Floats],
    ids: Strings | Sequence[bytes],
    settings: IndexSettings,
    *,
    scratch: Path,
    seq_ids: Ints | None = None,
    max_seq_id: int | None = None,
    advance: Advance = lambda _: None,
) -> None:
    """Make a segment folder in which record i has label i + 1; all of it is on the disk then.

    Under cosine get() gives back each vector within float32 rounding, but, as in Chroma, not one
    whose norm is no normal float32 number.

    Args:
        folder: does not exist. After an error or an interrupt it does not either.
        vectors: float32 (k, dimension) each, together as many as there are ids.
        ids: UTF-8, each different.
        scratch: a file that does not exist, on a file system with room for the index; it is gone
            afterwards.
        seq_ids: int64 (n,), of each record's last write; 0.x has them in its id map.
        max_seq_id: the watermark; 0.4 has it in its id map.
        advance: told how many more vectors were added.

    Raises:
        EngineMissing: hnswlib is not installed.
        UsageError: ids, vectors, seq_ids and settings do not fit together.
        VectorsNotFinite: some are not; all of them were looked at.
        ActionFailed: the system or hnswlib refused something.
    """
    column = ids if isinstance(ids, Strings) else Strings.of(ids)
    line = LINES[settings.line]
    _check_ids(column, line, seq_ids, max_seq_id)
    engine = _engine()
    with _made(folder):
        with _scratch_file(scratch):
            norms = _save_index(engine, scratch, vectors, len(column), settings, advance)
            with _refusals(folder):
                _split(engine, scratch, folder, norms, settings)
        with _refusals(folder):
            with new_file(folder / ID_MAP) as file:
                if line.shape == "dict":
                    write_dict(file, column)
                else:
                    assert seq_ids is not None
                    watermark = max_seq_id if line.keeps_watermark else None
                    write_instance(file, column, settings.dimension, seq_ids, watermark)
            sync_directory(folder)
            sync_directory(folder.parent)


def _check_ids(ids: Strings, line: Line, seq_ids: Ints | None, max_seq_id: int | None) -> None:
    if not len(ids):
        raise UsageError("there is no index of no records")
    if len(ids) > LARGEST_COUNT:
        raise UsageError(f"{len(ids)} records are more than there are labels")
    if repeats := ids.repeats():
        raise UsageError(f"{repeats} ids come more than once")
    for position, each in enumerate(ids):
        try:
            each.decode()
        except UnicodeDecodeError:
            raise UsageError(f"the id at {position} is no UTF-8") from None
    if line.shape == "instance":
        if seq_ids is None or seq_ids.shape != (len(ids),) or seq_ids.min() < 0:
            raise UsageError("an id map of chromadb 0.x has a seq_id for every record")
        if line.keeps_watermark and (max_seq_id is None or max_seq_id < 0):
            raise UsageError("an id map of chromadb 0.4 has the watermark")


@dataclass(frozen=True, slots=True)
class _Engine:
    """The module hnswlib, and whether it is the fork."""

    module: Any
    is_fork: bool


def _engine() -> _Engine:
    try:
        import hnswlib
    except ImportError as error:
        text = f"building an index needs hnswlib ({error}); there is an extra: hnswcheck[repair]"
        raise EngineMissing(text) from error
    return _Engine(hnswlib, hasattr(hnswlib.Index, "persist_dirty"))


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A new folder, which goes again where the work in it fails."""
    with _refusals(folder):
        folder.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _scratch_file(path: Path) -> Iterator[None]:
    with _refusals(path):
        path.open("xb").close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What the system or hnswlib refuses becomes one line."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, FormatError) as error:
        match error:
            case OSError():
                why = error.strerror or str(error)
            case FormatError():
                why = f"hnswlib saved no whole index, is the disk full? ({error})"
            case _:
                why = f"hnswlib: {error or 'not enough memory'}"
        raise ActionFailed(f"no index was built in {path_text(path)}: {why}") from error


def _save_index(
    engine: _Engine,
    path: Path,
    vectors: Iterable[Floats],
    count: int,
    settings: IndexSettings,
    advance: Advance,
) -> Floats:
    """Build an index and save it; float32 (count,): what length.bin has of each record.

    Under l2 and ip Chroma never sets that: zeros are what memory usually holds.
    """
    norms = np.zeros(count, np.float32)
    with _refusals(path):
        index = engine.module.Index(space=SPACES[settings.space], dim=settings.dimension)
        index.init_index(
            max_elements=count,
            M=settings.m,
            ef_construction=settings.ef_construction,
            random_seed=LINES[settings.line].seed,
        )
    first, bad = 0, list[int]()
    for block in _blocks(vectors, count, settings.dimension):
        after = first + len(block)
        bad += (first + _not_finite(block)).tolist()
        if not bad:
            if settings.space == "cosine":
                norms[first:after] = _normalise(block)
            labels = np.arange(first + 1, after + 1, dtype=np.uint64)
            with _refusals(path):
                index.add_items(block, labels, num_threads=settings.threads or -1)
        advance(len(block))
        first = after
    if bad:
        raise VectorsNotFinite(bad)
    with _refusals(path):
        index.save_index(os.fsencode(path))
    return norms


def _blocks(vectors: Iterable[Floats], count: int, dimension: int) -> Iterator[Floats]:
    """The vectors in blocks of one size; each overwrites the one before.

    Raises:
        UsageError: they are of another dimension, or not ``count``.
    """
    rows = max(1, min(count, BLOCK_ROWS, BLOCK_BYTES // (4 * dimension)))
    block = np.empty((rows, dimension), np.float32)
    filled = total = 0
    for chunk in vectors:
        if chunk.ndim != 2 or chunk.shape[1] != dimension:
            raise UsageError(f"vectors of shape {chunk.shape}, expected (n, {dimension})")
        total += len(chunk)
        if total > count:
            break
        taken = 0
        while taken < len(chunk):
            part = chunk[taken : taken + rows - filled]
            block[filled : filled + len(part)] = part
            taken += len(part)
            filled += len(part)
            if filled == rows:
                yield block
                filled = 0
    if total != count:
        raise UsageError(f"{count} ids, and {'more' if total > count else total} vectors")
    if filled:
        yield block[:filled]


def _not_finite(vectors: Floats) -> Ints:
    with np.errstate(all="ignore"):
        sums = vectors.sum(axis=1, dtype=np.float64)
    return np.flatnonzero(~np.isfinite(sums))  # no sum of float32 leaves float64


def _normalise(vectors: Floats) -> Floats:
    """Normalise in place; float32 (n,): the norms.

    Chroma sums squares in float32 and so loses vectors that are merely small or large. Where the
    norm itself is no normal float32, this does what Chroma does.
    """
    norms = np.empty(len(vectors), np.float32)
    for first in range(0, len(vectors), NORMALISED_ROWS):
        rows = vectors[first : first + NORMALISED_ROWS]
        wide = rows.astype(np.float64)
        with np.errstate(over="ignore"):
            norm = np.sqrt(np.einsum("ij,ij->i", wide, wide)).astype(np.float32)
        norm[norm < np.finfo(np.float32).tiny] = 0
        rows[:] = wide / np.where(norm > 0, norm, ADDED_TO_NORM)[:, None]
        norms[first : first + NORMALISED_ROWS] = norm
    return norms


def _split(
    engine: _Engine, path: Path, folder: Path, norms: Floats, settings: IndexSettings
) -> None:
    """Chroma's four files of a saved index.

    Raises:
        FormatError: it is cut short, which hnswlib does not notice, or not the one that was built.
        OSError: the system refused something.
    """
    header = read_header(path)
    built = (header.count, header.dimension, header.m)
    if built != (len(norms), settings.dimension, settings.m):
        raise FormatError(f"{path.name} holds another index")
    capacity = LINES[settings.line].capacity_for(header.count, settings.resize_factor)
    with ExitStack() as files:
        targets = {name: files.enter_context(new_file(folder / name)) for name in INDEX_FILES}
        split_index(path, header, capacity, norms, engine.is_fork, targets)
    check_links(folder / LINKS, header)
