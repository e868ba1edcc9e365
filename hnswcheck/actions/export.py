"""All that salvage finds of a collection, for people who want to rebuild it elsewhere."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hnswcheck.apart import Progress, alone, silent
from hnswcheck.audit import Question, examine, naming
from hnswcheck.checks.proof import Grade
from hnswcheck.checks.salvage import NOWHERE, Salvage, salvage
from hnswcheck.disk.catalog import read_collections, read_schema
from hnswcheck.disk.database import DATABASE, Database
from hnswcheck.disk.records import PAGE_DOCUMENTS, read_metadata
from hnswcheck.disk.scratch import scratch_directory
from hnswcheck.disk.text import text
from hnswcheck.disk.view import open_store
from hnswcheck.errors import ActionFailed, RepairRefused, UsageError
from hnswcheck.report import Level
from hnswcheck.target import read_targets

VECTORS, LINES = ".npz", ".jsonl"


@dataclass(frozen=True, slots=True)
class Export:
    """What was written.

    Attributes:
        vectors: a file of numpy: ``vectors`` float32 (n, dimension), NaN where there is none, and
            ``grades`` uint8 (n,).
        lines: JSON lines in the same order: id, grade, source, document, metadata.
        grades: how many records have a best vector of each grade.
    """

    vectors: Path
    lines: Path
    grades: dict[str, int]


def export(
    path: str | os.PathLike[str],
    collection: str,
    output: str | os.PathLike[str],
    progress: Progress = silent,
) -> Export:
    """Write what is left of a collection to two files, without touching the store.

    Args:
        path: the persist directory.
        collection: its name or id; one that several have is refused.
        output: the files' name, to which ``.npz`` and ``.jsonl`` are added.
        progress: called as records are written.

    Raises:
        UsageError: no such collection, or several; or ``output`` is within the store.
        RepairRefused: nobody can tell what its records are.
        ActionFailed: the files cannot be written.
        HnswcheckError: as :func:`hnswcheck.audit` does.
    """
    question = Question.of(path, Level.STANDARD, [collection])
    target = Path(output)
    if target.resolve().is_relative_to(question.directory.resolve()):
        raise UsageError(f"{output}: not within the store, where nothing may be written")
    with naming(path):
        return alone(question.directory / DATABASE, _export, (question, target), progress)


def _export(question: Question, output: Path, progress: Progress = silent) -> Export:
    found = examine(question).segments
    if len(found) != 1:
        ids = ", ".join(segment.collection.id for segment in found)
        raise UsageError(f"{len(found)} collections of that name; say which by its id: {ids}")
    (report,) = found
    with open_store(question.directory) as view:
        schema = read_schema(view.database)
        (collection,) = read_collections(view.database, schema, report.collection.id)
        if collection.vector is None or collection.metadata is None:
            raise RepairRefused(f"collection {collection.name!r} lacks a segment in sqlite")
        (target,) = read_targets(view, [collection], schema, with_ids=True)
        result = salvage(view.database, target)
        vectors, lines = (Path(f"{output}{suffix}") for suffix in (VECTORS, LINES))
        try:
            _write_vectors(vectors, result, view.database, collection.dimension or 0)
            _write_lines(lines, result, view.database, progress, collection.name)
        except OSError as error:
            raise ActionFailed(f"{error.filename or output}: {error.strerror or error}") from error
    grades = Counter(Grade(grade).name.lower() for grade in result.grades.tolist())
    return Export(vectors, lines, dict(grades))


def _write_vectors(path: Path, found: Salvage, database: Database, dimension: int) -> None:
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
            np.savez(file, vectors=gathered, grades=found.grades)


def _write_lines(
    path: Path, found: Salvage, database: Database, progress: Progress, name: str
) -> None:
    rowids = found.records.rowids
    with path.open("w", encoding="utf-8") as file:
        for begin in range(0, len(rowids), PAGE_DOCUMENTS):
            page = rowids[begin : begin + PAGE_DOCUMENTS]
            metadata = read_metadata(database, page)
            for index, rowid in enumerate(page.tolist(), begin):
                own = metadata.get(rowid, {})
                line = {
                    "id": text(found.records.ids[index]),
                    "grade": Grade(int(found.grades[index])).name.lower(),
                    "source": found.source_name(index),
                    "document": own.pop("chroma:document", None),
                    "metadata": own,
                }
                file.write(json.dumps(line) + "\n")
            progress(begin + len(page), len(rowids), name)
