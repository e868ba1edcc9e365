"""Account 1 of a folder that need not be the segment's own."""

from __future__ import annotations

from pathlib import Path

from hnswcheck.checks.ledger import Balance, balance, replay_index
from hnswcheck.errors import StoreUnreadable
from hnswcheck.formats.strings import Strings
from hnswcheck.store.collection_view import Target
from hnswcheck.store.segment import open_segment

NO_IDS = Strings.of(())


def balance_with(
    target: Target, folder: Path | None, start: int, records: Strings
) -> tuple[Balance | None, Strings]:
    """Account 1 if this folder were the segment's, and its ids; None if they cannot be read.

    Args:
        start: where the replay of the WAL would begin.
        records: the records after replay.
    """
    try:
        id_map = open_segment(folder).read_id_map() if folder else None
    except StoreUnreadable:
        return None, NO_IDS
    if id_map is not None and id_map.problem is not None:
        return None, NO_IDS
    ids = id_map.id_to_label.ids if id_map else NO_IDS
    replay = replay_index(target.read_all_wal(), start, id_map, None, target.revives)
    return balance(records, replay, ids), ids
