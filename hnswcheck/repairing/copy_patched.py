"""A new segment folder from the files of another: what a patch changes, and the rest as it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from hnswcheck.durable import new_file, sync_directory
from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.id_map_writer import write_dict, write_instance
from hnswcheck.formats.level0 import TOMBSTONE, element_dtype
from hnswcheck.formats.segment_files import ID_MAP, INDEX_FILES, LEVEL0, LINKS
from hnswcheck.repairing.build_index import new_folder, refusals
from hnswcheck.repairing.patch import Patch
from hnswcheck.store.records import Records
from hnswcheck.store.releases import Release
from hnswcheck.store.segment import open_segment

CHUNK = 1 << 20


def copy_patched(
    patch: Patch,
    folder: Path,
    records: Records,
    release: Release,
    advance: Callable[[int], None],
) -> None:
    """Make a new folder of the files that are kept, changed; all of it is on the disk then.

    Args:
        folder: does not exist. After an error or an interrupt it does not either.
        advance: told how many more bytes were copied.

    Raises:
        ActionFailed: the system refused something.
    """
    header = open_segment(patch.folder).header
    assert header is not None
    with new_folder(folder), refusals(folder):
        for name in INDEX_FILES:
            size = patch.links_size if name == LINKS else None
            with (patch.folder / name).open("rb") as source, new_file(folder / name) as target:
                _copy(source, target, size, advance)
                if name == LEVEL0 and patch.relabelling is not None:
                    dtype = element_dtype(header)
                    assert dtype.fields is not None
                    flags = patch.relabelling.dead * dtype.itemsize + dtype.fields["flags"][1]
                    _mark_deleted(target, flags)
        with new_file(folder / ID_MAP) as target:
            if patch.relabelling is None:
                with (patch.folder / ID_MAP).open("rb") as source:
                    _copy(source, target, None, advance)
            else:
                new = patch.relabelling
                names = (records.ids.take(new.chosen), new.labels, new.last_label)
                if release.id_map == "dict":
                    write_dict(target, *names)
                else:
                    seq_ids = records.seq_ids[new.chosen]
                    write_instance(target, *names, header.dimension, seq_ids, None)
        sync_directory(folder)
        sync_directory(folder.parent)


def _copy(
    source: BinaryIO, target: BinaryIO, size: int | None, advance: Callable[[int], None]
) -> None:
    while size is None or size > 0:
        chunk = source.read(CHUNK if size is None else min(size, CHUNK))
        if not chunk:
            return
        target.write(chunk)
        size = None if size is None else size - len(chunk)
        advance(len(chunk))


def _mark_deleted(file: BinaryIO, places: Ints) -> None:
    """Set flags as ``markDeletedInternal`` does."""
    for place in places.tolist():
        file.seek(place)
        file.write(bytes([TOMBSTONE]))
