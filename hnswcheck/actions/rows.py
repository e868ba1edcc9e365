"""What an export says of each record, besides its vector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from hnswcheck.checks.proof import Grade
from hnswcheck.checks.salvage import Salvage
from hnswcheck.disk.database import Database
from hnswcheck.disk.records import PAGE_DOCUMENTS, Value, read_metadata
from hnswcheck.disk.strings import Ints
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

    def to_json(self) -> str:
        """A line."""
        return json.dumps(asdict(self)) + "\n"


Page = list[Row]


def rows_of(found: Salvage, chosen: Ints, database: Database) -> Iterator[Page]:
    """Some records in their order, a page at a time."""
    for begin in range(0, len(chosen), PAGE_DOCUMENTS):
        page = chosen[begin : begin + PAGE_DOCUMENTS]
        rowids = found.records.rowids[page]
        in_sqlite = rowids[page < len(found.records.ids) - found.made]
        metadata = read_metadata(database, in_sqlite)
        rows: Page = []
        for index, rowid in zip(page.tolist(), rowids.tolist(), strict=True):
            own = metadata.get(rowid, {}) if rowid in in_sqlite else {}
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
