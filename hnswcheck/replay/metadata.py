"""What replaying the log does to a record's document and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hnswcheck.store.documents import Value
from hnswcheck.store.wal import WalRow


def replay_metadata(
    own: dict[str, Value],
    made: bool,
    rows: Sequence[WalRow],
    written: Mapping[int, Mapping[str, Value]],
) -> dict[str, Value]:
    """The metadata of a record once METADATA has applied these rows, all that are of its id.

    Args:
        made: it is one that they make: what was there of its id before, they delete.
    """
    deletes = (i for i, row in enumerate(rows) if row.operation == "delete")
    exists = not made
    for row in rows[max(deletes, default=-1) + 1 :]:
        if row.operation == ("add" if exists else "update"):
            continue  # has no effect
        exists = True
        own = {**own, **written.get(row.seq_id, {})}
        own = {key: value for key, value in own.items() if value is not None}
    return own
