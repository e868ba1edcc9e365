"""Records as JSON lines: all but their vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hnswcheck.actions.salvage import Salvage
from hnswcheck.checks.proof import Grade
from hnswcheck.disk.database import Database
from hnswcheck.disk.records import PAGE_DOCUMENTS, read_metadata
from hnswcheck.disk.strings import Ints
from hnswcheck.disk.text import text


def lines_of(found: Salvage, chosen: Ints, database: Database) -> Iterator[str]:
    """A line for each of some records, in their order: id, grade, source, document, metadata."""
    for begin in range(0, len(chosen), PAGE_DOCUMENTS):
        page = chosen[begin : begin + PAGE_DOCUMENTS]
        metadata = read_metadata(database, found.records.rowids[page])
        for index in page.tolist():
            own = metadata.get(int(found.records.rowids[index]), {})
            line = {
                "id": text(found.records.ids[index]),
                "grade": Grade(int(found.grades[index])).name.lower(),
                "source": found.source_name(index),
                "document": own.pop("chroma:document", None),
                "metadata": own,
            }
            yield json.dumps(line) + "\n"
