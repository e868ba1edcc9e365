"""An export as one Parquet file, for pandas, DuckDB, Arrow and the like.

Columns: ``id`` string, ``vector`` fixed-size list of float32 (null where there is none), ``grade``,
``reason`` and ``source`` string, ``document`` string or null, ``metadata`` string, a JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hnswcheck.errors import ActionFailed, ExtraMissing
from hnswcheck.salvaging.rows import Page
from hnswcheck.salvaging.sources import NOWHERE, Salvaged
from hnswcheck.store.database import Database

SUFFIX = ".parquet"
#: A row group is kept in memory: it ends with the page that brings it over this.
GROUP_BYTES = 32 << 20


def is_parquet(path: Path) -> bool:
    """Whether a file's name asks for Parquet."""
    return path.suffix.lower() == SUFFIX


def need_pyarrow() -> None:
    """See to it that Parquet can be written.

    Raises:
        ExtraMissing: it cannot.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        text = f"Parquet needs pyarrow ({error}); install it with: pip install 'hnswcheck[parquet]'"
        raise ExtraMissing(text) from error


def write_parquet(
    path: Path, found: Salvaged, pages: Iterator[Page], database: Database, dimension: int
) -> None:
    """Write an export, a row group at a time.

    Args:
        pages: all records, in their order.

    Raises:
        ActionFailed: a value that Parquet cannot hold.
        OSError: the system refused something.
    """
    import pyarrow
    from pyarrow import parquet

    vector = pyarrow.list_(pyarrow.float32(), dimension)
    names = ("id", "vector", "grade", "reason", "source", "document", "metadata")
    kinds = dict.fromkeys(names, pyarrow.string()) | {"vector": vector}
    required = {"id", "grade", "reason", "source", "metadata"}
    schema = pyarrow.schema(
        [pyarrow.field(name, kinds[name], nullable=name not in required) for name in names]
    )
    try:
        with path.open("wb") as file, parquet.ParquetWriter(file, schema) as writer:
            for first, rows in _groups(pages, dimension):
                columns = _columns(rows)
                columns["vector"] = _vectors(pyarrow, vector, found, first, len(rows), database)
                table = pyarrow.table(columns, schema)
                writer.write_table(table, row_group_size=max(1, len(rows)))
    except pyarrow.ArrowException as error:
        raise ActionFailed(f"{path}: {error}") from error


def _groups(pages: Iterator[Page], dimension: int) -> Iterator[tuple[int, Page]]:
    """(the number of the first, records) of each row group."""
    first, size = 0, 0
    rows: Page = []
    for page in pages:
        rows += page
        size += sum(4 * dimension + len(str(r.document)) + len(str(r.metadata)) for r in page)
        if size > GROUP_BYTES:
            yield first, rows
            first, size, rows = first + len(rows), 0, []
    if rows:
        yield first, rows


def _columns(rows: Page) -> dict[str, Any]:
    return {
        "id": [row.id for row in rows],
        "vector": None,
        "grade": [row.grade for row in rows],
        "reason": [row.reason for row in rows],
        "source": [row.source for row in rows],
        "document": [None if row.document is None else str(row.document) for row in rows],
        "metadata": [json.dumps(row.metadata) for row in rows],
    }


def _vectors(
    pyarrow: Any, kind: Any, found: Salvaged, first: int, count: int, database: Database
) -> Any:
    """The vectors of records that follow each other."""
    dimension = kind.list_size
    lost = found.sources[first : first + count] == NOWHERE
    values = np.zeros((count, dimension), np.float32)
    there = np.flatnonzero(~lost)
    done = 0
    for chunk in found.read(first + there, database, dimension):
        values[there[done : done + len(chunk)]] = chunk
        done += len(chunk)
    flat = pyarrow.array(values.ravel())
    return pyarrow.FixedSizeListArray.from_arrays(flat, type=kind, mask=pyarrow.array(lost))
