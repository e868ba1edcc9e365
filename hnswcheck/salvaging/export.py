"""All that salvage finds of a collection, written to files, to rebuild it elsewhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnswcheck.durable import replacing
from hnswcheck.errors import ActionFailed, RepairRefused, StoreChanged, UsageError, naming
from hnswcheck.formats.text import path_text
from hnswcheck.isolation import call_isolated_if_open
from hnswcheck.progress import Progress, silent
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.parquet import is_parquet, need_pyarrow, write_parquet
from hnswcheck.salvaging.reason import Reason
from hnswcheck.salvaging.rows import Page, rows_of
from hnswcheck.salvaging.sources import NOWHERE, Salvaged, find_sources
from hnswcheck.store.catalog import Collection, read_collections, select_collections
from hnswcheck.store.collection_view import read_collection_views
from hnswcheck.store.database import DATABASE, Database
from hnswcheck.store.schema import read_schema
from hnswcheck.store.scratch import scratch_directory
from hnswcheck.store.view import open_store

VECTORS, LINES = ".npz", ".jsonl"


@dataclass(frozen=True, slots=True)
class SalvageResult:
    """What was written.

    Attributes:
        vectors: a file of numpy: ``vectors`` float32 (n, dimension), NaN where there is none;
            ``grades`` uint8 (n,), each the number of a :class:`Grade`; ``reasons`` uint8 (n,), each
            the number of a :class:`Reason`.
        lines: JSON lines in the same order: id, grade, reason, source, document, metadata.
        reasons: how many records have a best vector of each grade, the best first, by the reason
            of the grade.

    A Parquet file holds all of that: both are its path.
    """

    vectors: Path
    lines: Path
    reasons: dict[Grade, dict[Reason, int]]

    @property
    def grades(self) -> dict[str, int]:
        """How many records have a best vector of each grade, the best first."""
        return {grade.name.lower(): sum(n.values()) for grade, n in self.reasons.items()}


def salvage(
    path: str | os.PathLike[str],
    collection: str,
    output: str | os.PathLike[str],
    progress: Progress = silent,
) -> SalvageResult:
    """Write what is left of a collection to files, without touching the store.

    They take the place of files of the same name once they are whole, not before.

    Args:
        path: the persist directory.
        collection: its name or id; one that several have is refused.
        output: the files' name, to which ``.npz`` and ``.jsonl`` are added; or of one file, if it
            ends with ``.parquet``, for which there is the extra ``parquet``.
        progress: called as records are written.

    Raises:
        UsageError: no such collection, or several; or ``output`` is within the store, or in a
            directory that is not there.
        ExtraMissing: Parquet is wanted, and pyarrow is not installed.
        RepairRefused: nobody can tell what its records are.
        ActionFailed: the files cannot be written.
        HnswcheckError: as :func:`hnswcheck.audit` does.
    """
    target = Path(output)
    if not os.path.isdir(target.parent):  # noqa: PTH112 - Path.is_dir raises for some names
        raise UsageError(f"{path_text(target.parent)}: no such directory")
    if is_parquet(target):
        need_pyarrow()
    root = Path(path)
    if target.resolve().is_relative_to(root.resolve()):
        raise UsageError(
            f"{output} is inside the store, where an export writes nothing: choose another place"
        )
    with naming(path):
        return call_isolated_if_open(
            root / DATABASE, _salvage, (root, collection, target), progress
        )


def _salvage(root: Path, name: str, output: Path, progress: Progress = silent) -> SalvageResult:
    with open_store(root) as view:
        schema = read_schema(view.database)
        found = select_collections(read_collections(view.database, schema), [name])
        if len(found) != 1:
            ids = ", ".join(one.id for one in found)
            raise UsageError(
                f"{len(found)} collections have that name; choose one by its id: {ids}"
            )
        (collection,) = found
        if collection.vector is None or collection.metadata is None:
            raise RepairRefused(f"collection {collection.name!r} lacks a segment in sqlite")
        (seen,) = read_collection_views(view, [collection], schema, with_ids=True)
        folders = [*([seen.folder] if seen.folder else ()), *seen.aside]
        before = view.moment(folders)
        result = find_sources(view.database, seen)

        def check_unchanged() -> None:
            if view.moment(folders) != before:
                raise StoreChanged(f"{root}: it was written while it was read")

        total = len(result.grades)
        pages = rows_of(result, np.arange(total), view.database)
        rows = _told(pages, total, progress, collection)
        try:
            dimension = collection.dimension or 0
            vectors, lines = _write(output, result, rows, view.database, dimension, check_unchanged)
        except OSError as error:
            raise ActionFailed(f"{error.filename or output}: {error.strerror or error}") from error
    return SalvageResult(vectors, lines, result.reasons_by_grade())


def _told(
    pages: Iterator[Page], total: int, progress: Progress, collection: Collection
) -> Iterator[Page]:
    done = 0
    for page in pages:
        yield page
        done += len(page)
        progress(done, total, collection.name)


def _write(
    output: Path,
    found: Salvaged,
    pages: Iterator[Page],
    database: Database,
    dimension: int,
    check: Callable[[], None],
) -> tuple[Path, Path]:
    """Write the files; they take their place if the check at the end does not raise."""
    if is_parquet(output):
        with replacing(output) as whole:
            write_parquet(whole, found, pages, database, dimension)
            check()
        return output, output
    vectors, lines = (Path(f"{output}{suffix}") for suffix in (VECTORS, LINES))
    with replacing(vectors) as array, replacing(lines) as text:
        _write_vectors(array, found, database, dimension)
        with text.open("w", encoding="utf-8") as file:
            for page in pages:
                file.writelines(row.to_json() for row in page)
        check()
    return vectors, lines


def _write_vectors(path: Path, found: Salvaged, database: Database, dimension: int) -> None:
    """Gathered in a file first: they need not fit into memory."""
    chosen = np.flatnonzero(found.sources != NOWHERE)
    with scratch_directory() as scratch:
        gathered = np.lib.format.open_memmap(
            scratch / "vectors.npy", "w+", np.float32, (len(found.grades), dimension)
        )
        gathered[:] = np.nan
        first = 0
        for chunk in found.read(chosen, database, dimension):
            gathered[chosen[first : first + len(chunk)]] = chunk
            first += len(chunk)
        with path.open("wb") as file:
            np.savez(file, vectors=gathered, grades=found.grades, reasons=found.reasons)
