"""What an export says of each record, besides its vector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hnswcheck.actions.salvage import Salvage
from hnswcheck.checks.proof import Grade
from hnswcheck.disk.database import Database
from hnswcheck.disk.records import PAGE_DOCUMENTS, Value, read_metadata
from hnswcheck.disk.text import text

DOCUMENT = "chroma:document"


@dataclass(frozen=True, slots=True)
class Row:
    """One record.

    Attributes:
        grade: of its best vector.
        source: where that is: "wal", a folder's name, or "nowhere".
    """

    id: str
    grade: str
    source: str
    document: Value
    metadata: dict[str, Value]


Page = list[Row]


def exported_rows(found: Salvage, database: Database) -> Iterator[Page]:
    """All records in their order, a page at a time."""
    rowids = found.records.rowids
    for begin in range(0, len(rowids), PAGE_DOCUMENTS):
        page = rowids[begin : begin + PAGE_DOCUMENTS]
        metadata = read_metadata(database, page)
        rows: Page = []
        for index, rowid in enumerate(page.tolist(), begin):
            own = metadata.get(rowid, {})
            rows.append(
                Row(
                    text(found.records.ids[index]),
                    Grade(int(found.grades[index])).name.lower(),
                    found.source_name(index),
                    own.pop(DOCUMENT, None),
                    own,
                )
            )
        yield rows
