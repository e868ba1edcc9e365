"""The new folder of a segment, beside the old one: built from vectors, or copied and mended."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from hnswcheck.durable import new_file
from hnswcheck.errors import RepairRefused
from hnswcheck.formats.arrays import Floats, Ints
from hnswcheck.formats.segment_files import LINKS
from hnswcheck.progress import Progress
from hnswcheck.repairing.build_index import build_segment, refusals
from hnswcheck.repairing.copy_patched import copy_mended
from hnswcheck.repairing.embed_documents import Embedded
from hnswcheck.repairing.index_settings import IndexSettings, estimate
from hnswcheck.repairing.patch import Mend, last_operation
from hnswcheck.repairing.sample import Sample
from hnswcheck.repairing.segment_plan import SegmentRepair
from hnswcheck.salvaging.rows import rows_of
from hnswcheck.salvaging.sources import Salvaged
from hnswcheck.store.catalog import read_collections
from hnswcheck.store.collection_view import CollectionView, read_collection_views
from hnswcheck.store.database import Database
from hnswcheck.store.files import free_bytes, list_directory, look_at
from hnswcheck.store.manifest import free_name
from hnswcheck.store.names import SCRATCH
from hnswcheck.store.schema import Schema, read_schema
from hnswcheck.store.settings import read_declared_settings
from hnswcheck.store.view import StoreView, open_store

#: Vectors that are handed on at a time.
CHUNK = 1 << 12
#: What the swap needs on disk besides the index: journals, a manifest, blocks that are not full.
SWAP_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Made:
    """What is ready to take its place.

    Attributes:
        folder: the new one's name for now; None where none is needed.
        start: VECTOR's new watermark; None where it stays as it is, or the id map keeps it.
        lines: the file with the records that go, for now.
        nothing: an empty folder that stands for the old one, where that is not there.
    """

    folder: str | None
    start: int | None
    lines: str | None = None
    nothing: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All that was made, by its name in the persist directory."""
        return tuple(name for name in (self.folder, self.lines, self.nothing) if name)


def discard(root: Path, names: Iterable[str]) -> None:
    """Remove what was made and is of no use; what cannot be removed stays for the next action."""
    for name in names:
        with suppress(OSError):
            if (root / name).is_dir():
                shutil.rmtree(root / name)
            else:
                (root / name).unlink(missing_ok=True)


def make(
    root: Path,
    segment: SegmentRepair,
    embedded: Embedded | None,
    now: datetime,
    progress: Progress,
    sample: Sample,
) -> Made:
    """Build or copy what is needed, beside what is there.

    Args:
        embedded: the vectors of ``segment.embed``; None if there are none.
        sample: gets some of the vectors.

    Raises:
        HnswcheckError: it cannot be made.
    """
    found = segment.salvage
    assert found is not None
    with open_store(root) as store:
        schema = read_schema(store.database)
        name = free_name(root, segment.segment, now, "rebuilt")
        if segment.mend is not None:
            sample.take(segment.use, found, store.database, segment.collection.dimension or 0)
            made = _copy(root, name, segment, segment.mend, schema, progress)
        else:
            made = _build(root, name, segment, embedded, store, schema, progress, sample)
        try:
            if made.folder and look_at(root / segment.segment) is None:
                nothing = free_name(root, segment.segment, now, "rebuilt")
                made = replace(made, nothing=nothing)
                with refusals(root / nothing):
                    (root / nothing).mkdir()
            if len(segment.drop):
                made = replace(made, lines=name + SCRATCH)
                lines = root / (name + SCRATCH)
                with refusals(lines), new_file(lines) as file:
                    for page in rows_of(found, segment.drop, store.database):
                        file.writelines(row.to_json().encode() for row in page)
        except BaseException:
            discard(root, made.names)
            raise
        return made


def _copy(
    root: Path, name: str, segment: SegmentRepair, mend: Mend, schema: Schema, progress: Progress
) -> Made:
    assert segment.salvage is not None
    size = sum(state.size for state in list_directory(mend.folder) if state.name != LINKS)
    _check_space(root, size)
    advance = _counted(progress, size, segment.collection.name)
    records = segment.salvage.records
    copy_mended(mend, root / name, records, schema.release, advance)
    return Made(name, mend.start)


def _build(
    root: Path,
    name: str,
    segment: SegmentRepair,
    embedded: Embedded | None,
    store: StoreView,
    schema: Schema,
    progress: Progress,
    sample: Sample,
) -> Made:
    found = segment.salvage
    assert found is not None
    chosen = np.sort(np.concatenate([segment.use, segment.embed]))
    if not len(chosen):
        return Made(None, None)
    (collection,) = read_collections(store.database, schema, segment.collection.id)
    (view,) = read_collection_views(store, [collection], schema, with_ids=False)
    last = last_operation(view)
    settings = _settings(schema, view, found, store.database)
    ids = found.records.ids.take(chosen)
    _, needed = estimate(len(chosen), settings.dimension, settings.m, int(ids.lengths.sum()))
    _check_space(root, needed)
    vectors = _vectors(found, chosen, segment.embed, embedded, store.database, settings.dimension)
    build_segment(
        root / name,
        sample.watch(chosen, segment.embed, vectors),
        ids,
        settings,
        scratch=root / (name + SCRATCH),
        seq_ids=None if schema.release.id_map == "dict" else found.records.seq_ids[chosen],
        max_seq_id=last if settings.made_by.watermark_in == "id map" else None,
        advance=_counted(progress, len(chosen), segment.collection.name),
    )
    return Made(name, None if settings.made_by.watermark_in == "id map" else last)


def _check_space(root: Path, needed: int) -> None:
    free = free_bytes(root)
    needed += SWAP_BYTES
    if needed > free:
        text = f"the new index needs {needed:,} bytes of disk, and {free:,} are free"
        raise RepairRefused(f"{root}: {text}; nothing was changed")


def _counted(progress: Progress, total: int, label: str) -> Callable[[int], None]:
    """Progress that is told how much more was done."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total, label)

    return advance


def _settings(
    schema: Schema, view: CollectionView, found: Salvaged, database: Database
) -> IndexSettings:
    """The collection's own: as its index was built, else as sqlite says."""
    c = view.collection
    declared = read_declared_settings(database, schema, c)
    header = found.folders[0].header if found.folders else None
    assert c.dimension is not None
    return IndexSettings(
        space=c.space,
        dimension=c.dimension,
        line=schema.release.line,
        m=header.m if header else declared.m,
        ef_construction=header.ef_construction if header else declared.ef_construction,
        threads=declared.threads,
    )


def _vectors(
    found: Salvaged,
    chosen: Ints,
    embed: Ints,
    embedded: Embedded | None,
    database: Database,
    dimension: int,
) -> Iterator[Floats]:
    """float32 chunks (k, dimension), in the order of the records."""
    is_embedded = np.isin(chosen, embed)
    for begin in range(0, len(chosen), CHUNK):
        part, new = chosen[begin : begin + CHUNK], is_embedded[begin : begin + CHUNK]
        vectors = np.empty((len(part), dimension), np.float32)
        if not new.all():
            vectors[~new] = np.concatenate(list(found.read(part[~new], database, dimension)))
        if new.any():
            assert embedded is not None
            vectors[new] = embedded.read(np.searchsorted(embed, part[new]))
        yield vectors
