"""Account 1 of a folder that need not be the segment's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hnswcheck.errors import StoreUnreadable
from hnswcheck.formats.strings import Strings, differences, find
from hnswcheck.replay.index import Replay, replay_index
from hnswcheck.store.collection_view import CollectionView
from hnswcheck.store.segment import open_segment

NO_IDS = Strings.of(())


def balance_with(
    view: CollectionView, folder: Path | None, start: int, records: Strings
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
    replay = replay_index(view.read_all_wal(), start, id_map, None, view.opener, view.settings)
    return balance(records, replay, ids), ids


@dataclass(frozen=True, slots=True)
class Balance:
    """Account 1 after replay.

    Attributes:
        missing: ids that sqlite has and the index lacks.
        phantom: ids that the index has and sqlite lacks.
        index_ids: how many ids the index has.
    """

    missing: tuple[bytes, ...]
    phantom: tuple[bytes, ...]
    index_ids: int


def balance(records: Strings, replay: Replay, index_ids: Strings) -> Balance:
    """Compare both sides after replay, as sets.

    Args:
        records: what sqlite has, after replay.
        index_ids: what the id map has, before replay.
    """
    only_records, only_ids = differences(records, index_ids)
    missing = {records[i] for i in only_records.tolist()}
    phantom = {index_ids[i] for i in only_ids.tolist()}
    touched = replay.present.keys()
    recorded, indexed = find(touched, records), find(touched, index_ids)
    size = len(index_ids)
    for record, present in replay.present.items():
        size += present - (record in indexed)
        _set(missing, record, record in recorded and not present)
        _set(phantom, record, present and record not in recorded)
    return Balance(tuple(missing), tuple(phantom), size)


def _set(members: set[bytes], record: bytes, belongs: bool) -> None:
    (members.add if belongs else members.discard)(record)
