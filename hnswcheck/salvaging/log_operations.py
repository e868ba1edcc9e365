"""What rows of the log did whose operation nobody can read, as far as the records tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from hnswcheck.formats.strings import find
from hnswcheck.store.records import Records
from hnswcheck.store.wal import WalRow


def with_operations(pending: Sequence[WalRow], records: Records) -> Sequence[WalRow] | None:
    """With an operation for each row; None where that cannot be told.

    Whether the last one on an id deleted it is to be seen by whether it is there.
    """
    unknown = {row.id for row in pending if row.operation is None}
    if not unknown:
        return pending
    last = {row.id: row.seq_id for row in pending}
    place = find(unknown, records.ids)
    guessed: list[WalRow] = []
    for row in pending:
        if row.operation is None and last[row.id] != row.seq_id:
            return None
        operation = row.operation or ("upsert" if row.id in place else "delete")
        guessed.append(replace(row, operation=operation))
    return guessed
