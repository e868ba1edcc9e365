"""How thoroughly a repair looks at what it made before it lets it stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from hnswcheck.changes.lock import reading
from hnswcheck.engines.chroma import find_chroma, has_chroma
from hnswcheck.errors import EngineMissing, HnswcheckError, RepairRefused, UsageError
from hnswcheck.repairing.index_settings import estimate
from hnswcheck.repairing.segment_plan import SegmentRepair
from hnswcheck.store.files import files_of_database, free_bytes, look_at
from hnswcheck.store.releases import DEFAULT_M
from hnswcheck.store.schema import read_schema
from hnswcheck.store.scratch import scratch_directory
from hnswcheck.store.view import open_store

OTHERWISE = "nothing was changed; --verify audit works without chromadb"


class Verify(StrEnum):
    """What has to be content with a new index, else the old one comes back.

    An engine's verification is an audit, too.
    """

    NONE = "none"
    AUDIT = "audit"
    CHROMA = "chroma"


@dataclass(frozen=True, slots=True)
class Verification:
    """How a repair is verified.

    Attributes:
        required: the caller has asked for the engine: what it cannot be asked must not stay.
        not_asked: why it is not the engine, where nobody has chosen.
    """

    verify: Verify
    required: bool = False
    not_asked: str = ""


def wanted(verify: str | None) -> Verify | None:
    """A caller's choice; None for the engine if it can be asked.

    Raises:
        UsageError: an unknown one.
        EngineMissing: the engine is wanted, and there is none.
    """
    try:
        chosen = None if verify is None else Verify(verify)
    except ValueError:
        raise UsageError(f"unknown verification {verify!r}: one of {', '.join(Verify)}") from None
    if chosen is Verify.CHROMA and not has_chroma():
        raise EngineMissing(f"--verify chroma needs chromadb, which is not installed; {OTHERWISE}")
    return chosen


def how_to_verify(
    root: Path, chosen: Verify | None, segments: Sequence[SegmentRepair]
) -> Verification:
    """How it is done, before anything is changed.

    Raises:
        HnswcheckError: the engine is wanted, and cannot be asked.
    """
    if chosen in (Verify.NONE, Verify.AUDIT):
        return Verification(chosen)
    try:
        if not has_chroma():
            raise EngineMissing("chromadb is not installed")
        with reading(root):
            with open_store(root) as view:
                release = read_schema(view.database).release
            find_chroma(release)
            check_room(root, segments)
    except HnswcheckError as error:
        if chosen is Verify.CHROMA:
            raise type(error)(f"--verify chroma: {error}; {OTHERWISE}") from error
        return Verification(Verify.AUDIT, not_asked=str(error))
    return Verification(Verify.CHROMA, required=chosen is Verify.CHROMA)


#: What Chroma may add to the copy by migrations and its own writes.
SLACK_BYTES = 64 << 20


def check_room(root: Path, segments: Sequence[SegmentRepair]) -> None:
    """Whether scratch space has room for a copy of each collection, one after the other.

    Raises:
        RepairRefused: it has not.
        StoreUnreadable: there is no place for scratch files.
    """
    states = map(look_at, files_of_database(root))
    database = sum(state.size for state in states if state)
    index = max((_index_bytes(segment) for segment in segments), default=0)
    with scratch_directory(root) as scratch:
        free, place = free_bytes(scratch), scratch.parent
        same = scratch.stat().st_dev == root.stat().st_dev
    needed = database + index + SLACK_BYTES
    if needed + (index if same else 0) > free:
        text = f"a copy for Chroma needs {needed:,} bytes in {place}, and {free:,} are free"
        raise RepairRefused(text)


def _index_bytes(segment: SegmentRepair) -> int:
    """The most that its new index and the building of it may take on disk."""
    found, dimension = segment.salvage, segment.collection.dimension
    if found is None or dimension is None:
        return 0
    m = found.folders[0].header.m if found.folders else DEFAULT_M
    ids = int(found.records.ids.lengths.sum())
    return estimate(len(found.grades), dimension, m, ids)[1]
