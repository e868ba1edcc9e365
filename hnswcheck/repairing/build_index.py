"""A new segment folder from vectors: what Chroma would have written had it added just these.

hnswlib builds the index and saves it into one file, which is split into Chroma's four
(:mod:`hnswcheck.formats.hnswlib_file`). chroma-hnswlib, the fork that chromadb 0.x installs under
the same module name, serves as well: hnswlib's own package must not be installed over it.
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

from hnswcheck.checks.next_release import largest_capacity
from hnswcheck.durable import new_file, sync_directory
from hnswcheck.errors import ActionFailed, EngineMissing, FormatError, UsageError, VectorsNotFinite
from hnswcheck.formats.arrays import Floats, Ints
from hnswcheck.formats.hnswlib_file import check_links, read_header, split_index
from hnswcheck.formats.id_map_writer import write_dict, write_instance
from hnswcheck.formats.segment_files import ID_MAP, INDEX_FILES, LINKS
from hnswcheck.formats.strings import Strings
from hnswcheck.formats.text import path_text
from hnswcheck.repairing.index_settings import (
    BLOCK_BYTES,
    BLOCK_ROWS,
    LARGEST_COUNT,
    SPACES,
    IndexSettings,
)
from hnswcheck.store.releases import Release

Advance = Callable[[int], None]

#: Rows normalised at a time, in float64.
NORMALISED_ROWS = 1024

#: ``normalize_vector`` in chroma-core/hnswlib divides by the norm plus this.
ADDED_TO_NORM = 1e-30


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
    release = settings.made_by
    _check_ids(column, release, seq_ids, max_seq_id)
    engine = _hnswlib()
    with new_folder(folder):
        with _scratch_file(scratch):
            norms = _save_index(engine, scratch, vectors, len(column), settings, advance)
            with refusals(folder):
                _split(engine, scratch, folder, norms, settings)
        with refusals(folder):
            labels = np.arange(1, len(column) + 1, dtype=np.uint64)
            with new_file(folder / ID_MAP) as file:
                if release.id_map == "dict":
                    write_dict(file, column, labels, len(column))
                else:
                    assert seq_ids is not None
                    watermark = max_seq_id if release.watermark_in == "id map" else None
                    write_instance(
                        file, column, labels, len(column), settings.dimension, seq_ids, watermark
                    )
            sync_directory(folder)
            sync_directory(folder.parent)


def _check_ids(
    ids: Strings, release: Release, seq_ids: Ints | None, max_seq_id: int | None
) -> None:
    if not len(ids):
        raise UsageError("cannot build an index: there are no records")
    if len(ids) > LARGEST_COUNT:
        raise UsageError(f"{len(ids)} records are more than an index has labels for")
    if repeats := ids.repeats():
        raise UsageError(f"{repeats} ids occur more than once")
    for position, each in enumerate(ids):
        try:
            each.decode()
        except UnicodeDecodeError:
            raise UsageError(f"the id at {position} is not UTF-8") from None
    if release.id_map == "instance":
        if seq_ids is None or seq_ids.shape != (len(ids),) or seq_ids.min() < 0:
            raise UsageError("an id map of chromadb 0.x needs a seq_id for every record")
        if release.watermark_in == "id map" and (max_seq_id is None or max_seq_id < 0):
            raise UsageError("an id map of chromadb 0.4 needs the watermark")


@dataclass(frozen=True, slots=True)
class _Hnswlib:
    """The module hnswlib, and whether it is the fork."""

    module: Any
    is_fork: bool


def check_hnswlib() -> None:
    """See whether an index can be built here.

    Raises:
        EngineMissing: hnswlib is not installed.
    """
    _hnswlib()


def _hnswlib() -> _Hnswlib:
    try:
        import hnswlib
    except ImportError as error:
        text = (
            f"building an index needs hnswlib ({error}); install it with: pip install"
            " 'hnswcheck[repair]'"
        )
        raise EngineMissing(text) from error
    return _Hnswlib(hnswlib, hasattr(hnswlib.Index, "persist_dirty"))


@contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Make a new folder, which goes again where the work in it fails."""
    free = not os.path.lexists(folder)
    try:
        with refusals(folder):
            folder.mkdir()
        yield
    except BaseException:
        if free:  # a signal may come before mkdir() has returned
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _scratch_file(path: Path) -> Iterator[None]:
    free = not os.path.lexists(path)
    try:
        with refusals(path):
            path.open("xb").close()
        yield
    finally:
        if free:
            with refusals(path):
                path.unlink(missing_ok=True)


@contextmanager
def refusals(path: Path) -> Iterator[None]:
    """What the system or hnswlib refuses becomes one line."""
    try:
        yield
    except (OSError, RuntimeError, MemoryError, FormatError) as error:
        match error:
            case OSError():
                why = error.strerror or str(error)
            case FormatError():
                why = f"hnswlib did not save a complete index ({error}); the disk may be full"
            case _:
                why = f"hnswlib: {error or 'not enough memory'}"
        raise ActionFailed(f"the index could not be built in {path_text(path)}: {why}") from error


def _save_index(
    engine: _Hnswlib,
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
    with refusals(path):
        index = engine.module.Index(space=SPACES[settings.space], dim=settings.dimension)
        index.init_index(
            max_elements=count,
            M=settings.m,
            ef_construction=settings.ef_construction,
            random_seed=settings.made_by.level_seed,
        )
    first, bad = 0, list[int]()
    for block in _blocks(vectors, count, settings.dimension):
        after = first + len(block)
        bad += (first + _not_finite(block)).tolist()
        if not bad:
            if settings.space == "cosine":
                norms[first:after] = _normalise(block)
            labels = np.arange(first + 1, after + 1, dtype=np.uint64)
            with refusals(path):
                index.add_items(block, labels, num_threads=settings.threads or -1)
        advance(len(block))
        first = after
    if bad:
        raise VectorsNotFinite(bad)
    with refusals(path):
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
    engine: _Hnswlib, path: Path, folder: Path, norms: Floats, settings: IndexSettings
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
    capacity = settings.made_by.capacity_for(header.count, settings.resize_factor)
    capacity = min(capacity, largest_capacity(header.count))  # it grows when there is need
    with ExitStack() as files:
        targets = {name: files.enter_context(new_file(folder / name)) for name in INDEX_FILES}
        split_index(path, header, capacity, norms, engine.is_fork, targets)
    check_links(folder / LINKS, header)
