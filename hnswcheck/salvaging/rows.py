"""What an export says of each record, besides its vector."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from hnswcheck.formats.arrays import Ints
from hnswcheck.formats.text import text
from hnswcheck.replay.metadata import replay_metadata
from hnswcheck.salvaging.grade import Grade
from hnswcheck.salvaging.reason import Reason
from hnswcheck.salvaging.sources import Salvaged
from hnswcheck.store.database import Database
from hnswcheck.store.documents import PAGE_DOCUMENTS, Value, read_metadata, read_wal_metadata
from hnswcheck.store.wal import WalRow

DOCUMENT = "chroma:document"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One record.

    Attributes:
        grade: of its best vector, the name of a :class:`Grade`.
        reason: why it has that grade, the slug of a :class:`Reason`.
        source: where that is: "wal", a folder's name, or "nowhere".
    """

    id: str
    grade: str
    reason: str
    source: str
    document: Value
    metadata: dict[str, Value]

    def to_json(self) -> str:
        """A line."""
        return json.dumps(asdict(self)) + "\n"


Page = list[Row]


def rows_of(found: Salvaged, chosen: Ints, database: Database) -> Iterator[Page]:
    """Some records in their order, a page at a time, as they are once the log is replayed."""
    pending: dict[bytes, list[WalRow]] = {}
    for row in found.pending:
        pending.setdefault(row.id, []).append(row)
    for begin in range(0, len(chosen), PAGE_DOCUMENTS):
        page = chosen[begin : begin + PAGE_DOCUMENTS]
        rowids = found.records.rowids[page]
        in_sqlite = rowids[page < len(found.records.ids) - found.made]
        metadata = read_metadata(database, in_sqlite)
        ids = list(found.records.ids.take(page))
        due = [row.seq_id for id in ids for row in pending.get(id, ())]
        written = read_wal_metadata(database, due)
        rows: Page = []
        for index, id, rowid in zip(page.tolist(), ids, rowids.tolist(), strict=True):
            made = rowid not in in_sqlite
            own = {} if made else metadata.get(rowid, {})
            if id in pending:
                own = replay_metadata(own, made, pending[id], written)
            rows.append(
                Row(
                    id=text(id),
                    grade=Grade(int(found.grades[index])).name.lower(),
                    reason=Reason(int(found.reasons[index])).slug,
                    source=found.source_name(index),
                    document=own.pop(DOCUMENT, None),
                    metadata=own,
                )
            )
        yield rows
