"""The new folder of a segment, beside the old one: built from vectors, or copied and patched."""

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
from hnswcheck.formats.arrays import Floats
from hnswcheck.formats.segment_files import LINKS
from hnswcheck.progress import Progress
from hnswcheck.repairing.build_index import build_segment, refusals
from hnswcheck.repairing.copy_patched import copy_patched
from hnswcheck.repairing.embed_documents import Embedded
from hnswcheck.repairing.index_settings import IndexSettings, estimate
from hnswcheck.repairing.patch import Patch, last_operation
from hnswcheck.repairing.sample import Sample
from hnswcheck.repairing.segment_plan import SegmentPlan
from hnswcheck.salvaging.rows import rows_of
from hnswcheck.store.catalog import read_collections
from hnswcheck.store.collection_view import CollectionView, read_collection_views
from hnswcheck.store.database import Database
from hnswcheck.store.files import free_bytes, list_directory, look_at
from hnswcheck.store.manifest import free_name
from hnswcheck.store.names import SCRATCH
from hnswcheck.store.schema import Schema, read_schema
from hnswcheck.store.view import StoreView, open_store

#: Vectors that are handed on at a time.
CHUNK = 1 << 12
#: What the swap needs on disk besides the index: journals, a manifest, blocks that are not full.
SWAP_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is ready to take its place, beside what is there.

    Attributes:
        folder: the name of the new folder for now; None if the segment gets no folder.
        start: VECTOR's new watermark; None if it stays as it is, or if the id map has it.
        lines: the name for now of the file with the records that are deleted; None without any.
        stand_in: the name of an empty folder that is moved aside in place of the old folder, if
            there is no old folder; else None.
    """

    folder: str | None
    start: int | None
    lines: str | None = None
    stand_in: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that was made."""
        return tuple(name for name in (self.folder, self.lines, self.stand_in) if name)


def discard(root: Path, names: Iterable[str]) -> None:
    """Remove what is of no use any more; what cannot be removed is left to the next action."""
    for name in names:
        with suppress(OSError):
            if (root / name).is_dir():
                shutil.rmtree(root / name)
            else:
                (root / name).unlink(missing_ok=True)


def prepare(
    root: Path,
    plan: SegmentPlan,
    embedded: Embedded | None,
    now: datetime,
    progress: Progress,
    sample: Sample,
) -> Prepared:
    """Build or copy what a plan needs, beside what is there.

    Args:
        embedded: the vectors of the records that are embedded again; None if there are none.
        sample: gets some of the vectors.

    Raises:
        HnswcheckError: it cannot be made; nothing of it is left.
    """
    name = free_name(root, plan.segment, now, "rebuilt")
    with open_store(root) as store:
        if plan.patch is not None:
            found = plan.fates.salvage
            sample.take(plan.fates.use, found, store.database, plan.dimension)
            made = _copy(root, name, plan, plan.patch, store, progress)
        else:
            made = _build(root, name, plan, embedded, store, progress, sample)
        try:
            if made.folder and look_at(root / plan.segment) is None:
                stand_in = free_name(root, plan.segment, now, "rebuilt")
                made = replace(made, stand_in=stand_in)
                with refusals(root / stand_in):
                    (root / stand_in).mkdir()
            if len(plan.fates.drop):
                made = replace(made, lines=name + SCRATCH)
                _write_deleted(root / (name + SCRATCH), plan, store.database)
        except BaseException:
            discard(root, made.names)
            raise
        return made


def _write_deleted(path: Path, plan: SegmentPlan, database: Database) -> None:
    """Write the records that are deleted, one JSON object a line."""
    with refusals(path), new_file(path) as file:
        for page in rows_of(plan.fates.salvage, plan.fates.drop, database):
            file.writelines(row.to_json().encode() for row in page)


def _copy(
    root: Path, name: str, plan: SegmentPlan, patch: Patch, store: StoreView, progress: Progress
) -> Prepared:
    """A patched copy of a folder."""
    size = sum(state.size for state in list_directory(patch.folder) if state.name != LINKS)
    _check_space(root, size)
    advance = _counted(progress, size, plan.collection.name)
    release = read_schema(store.database).writer
    copy_patched(patch, root / name, plan.fates.salvage.records, release, advance)
    return Prepared(name, patch.start)


def _build(
    root: Path,
    name: str,
    plan: SegmentPlan,
    embedded: Embedded | None,
    store: StoreView,
    progress: Progress,
    sample: Sample,
) -> Prepared:
    """A new index of all vectors that the plan has."""
    chosen, records = plan.fates.indexed, plan.fates.salvage.records
    if not len(chosen):
        return Prepared(None, None)
    schema = read_schema(store.database)
    (collection,) = read_collections(store.database, schema, plan.collection.id)
    (view,) = read_collection_views(store, [collection], schema, with_ids=False)
    if plan.log_end is not None:
        view = replace(view, highest=plan.log_end)
    settings, last = _settings(plan, schema, view), last_operation(view)
    ids = records.ids.take(chosen)
    _, needed = estimate(len(chosen), settings.dimension, settings.m, int(ids.lengths.sum()))
    _check_space(root, needed)
    in_id_map = schema.writer.watermark_in == "id map"
    build_segment(
        root / name,
        sample.watch(chosen, plan.fates.embed, _vectors(plan, embedded, store.database)),
        ids,
        settings,
        scratch=root / (name + SCRATCH),
        seq_ids=None if schema.writer.id_map == "dict" else records.seq_ids[chosen],
        max_seq_id=last if in_id_map else None,
        advance=_counted(progress, len(chosen), plan.collection.name),
    )
    return Prepared(name, None if in_id_map else last)


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


def _settings(plan: SegmentPlan, schema: Schema, view: CollectionView) -> IndexSettings:
    """The collection's settings: as its old index was built, else as sqlite says."""
    declared, folders = view.settings(), plan.fates.salvage.folders
    header = folders[0].header if folders else None
    return IndexSettings(
        space=view.collection.space,
        dimension=plan.dimension,
        line=schema.writer.line,
        m=header.m if header else declared.m,
        ef_construction=header.ef_construction if header else declared.ef_construction,
        threads=declared.threads,
    )


def _vectors(plan: SegmentPlan, embedded: Embedded | None, database: Database) -> Iterator[Floats]:
    """float32 chunks (k, dimension): of the records that are indexed, in their order."""
    chosen, found = plan.fates.indexed, plan.fates.salvage
    is_embedded = np.isin(chosen, plan.fates.embed)
    for begin in range(0, len(chosen), CHUNK):
        part, new = chosen[begin : begin + CHUNK], is_embedded[begin : begin + CHUNK]
        vectors = np.empty((len(part), plan.dimension), np.float32)
        if not new.all():
            vectors[~new] = np.concatenate(list(found.read(part[~new], database, plan.dimension)))
        if new.any():
            assert embedded is not None
            vectors[new] = embedded.read(np.searchsorted(plan.fates.embed, part[new]))
        yield vectors
