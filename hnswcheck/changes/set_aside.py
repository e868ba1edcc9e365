"""What is written beside a folder that is moved aside, by whichever action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from hnswcheck.changes.lock import Held
from hnswcheck.changes.log_end import LogEnd
from hnswcheck.replay.balance import Balance
from hnswcheck.report import CollectionInfo
from hnswcheck.store.manifest import FilePrint, Manifest, Owner, as_text, free_name
from hnswcheck.store.names import MANIFEST
from hnswcheck.store.watermarks import WatermarkRow


def set_aside(
    held: Held,
    segment: str,
    now: datetime,
    collection: CollectionInfo | Owner,
    watermark: WatermarkRow | None,
    files: tuple[FilePrint, ...],
    *,
    why: Sequence[str] = (),
    present: Balance | None,
    searchable: int = 0,
    after_repair: int = 0,
    report: dict[str, Any] | None = None,
    accepted: Mapping[str, tuple[str, ...]] | None = None,
    log_end: LogEnd | None = None,
) -> tuple[str, dict[str, bytes]]:
    """The name that a segment's folder gets, and its manifest by name.

    Args:
        collection: id, name, tenant and database, or what has them.
        present: account 1 at the time, if it can be told.
        log_end: the row that the action adds to the log.

    The others are as in :class:`Manifest`.
    """
    if isinstance(collection, CollectionInfo):
        c = collection
        collection = {"id": c.id, "name": c.name, "tenant": c.tenant, "database": c.database}
    name = free_name(held.root, segment, now)
    manifest = Manifest(
        folder=name,
        segment=segment,
        time=now.isoformat(timespec="seconds"),
        why=tuple(why),
        collection=collection,
        watermark=watermark,
        highest_seq_id=held.highest_seq_id(),
        missing=len(present.missing) if present else None,
        strangers=tuple(sorted(map(as_text, present.phantom))) if present else None,
        searchable=searchable,
        after_repair=after_repair,
        files=files,
        report=report,
        log=(1, log_end.seq_id) if log_end else held.log_of(collection["id"]),
        accepted=dict(accepted or {}),
    )
    return name, {name + MANIFEST: manifest.to_json()}
