"""Which verification a repair can do, and whether there is room for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hnswcheck.changes.lock import reading
from hnswcheck.engines.chroma import FoundChroma, find_chroma, has_chroma
from hnswcheck.errors import EngineMissing, HnswcheckError, RepairRefused, UsageError
from hnswcheck.repairing.choices import Verify
from hnswcheck.repairing.index_settings import estimate
from hnswcheck.repairing.segment_plan import SegmentPlan
from hnswcheck.store.files import files_of_database, free_bytes, look_at
from hnswcheck.store.releases import DEFAULT_M
from hnswcheck.store.schema import read_schema
from hnswcheck.store.scratch import scratch_directory
from hnswcheck.store.view import open_store

OTHERWISE = "nothing was changed; --verify audit works without chromadb"


@dataclass(frozen=True, slots=True)
class Verification:
    """How a repair is verified.

    Attributes:
        required: the caller asked for Chroma, so an index that Chroma cannot try must not stay.
        not_asked: why Chroma is not asked, if the caller did not choose that; else empty.
        chroma: the one that tries it, if one does.
    """

    verify: Verify
    required: bool = False
    not_asked: str = ""
    chroma: FoundChroma | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """How a caller wants a repair to be verified.

    Attributes:
        verify: None for Chroma if it can be asked, else an audit.
        python: the interpreter whose chromadb is asked; None for this one.
    """

    verify: Verify | None = None
    python: str | None = None


DEFAULT_WISH = Wish()


def wanted(verify: str | None, python: str | os.PathLike[str] | None = None) -> Wish:
    """The verification that a caller chose.

    Args:
        python: who names one asks for Chroma.

    Raises:
        UsageError: there is no such verification, or it does not ask Chroma, which ``python`` does.
        EngineMissing: the caller chose Chroma, and chromadb is not installed.
    """
    try:
        chosen = None if verify is None else Verify(verify)
    except ValueError:
        raise UsageError(f"unknown verification {verify!r}: one of {', '.join(Verify)}") from None
    if python is not None:
        if chosen not in (None, Verify.CHROMA):
            raise UsageError(f"--chroma-python and --verify {chosen} exclude each other")
        return Wish(Verify.CHROMA, str(Path.cwd() / python))  # it is run elsewhere
    if chosen is Verify.CHROMA and not has_chroma():
        raise EngineMissing(f"--verify chroma needs chromadb, which is not installed; {OTHERWISE}")
    return Wish(chosen)


def how_to_verify(root: Path, wish: Wish, segments: Sequence[SegmentPlan]) -> Verification:
    """How a repair is going to be verified; asked before anything is changed.

    Raises:
        HnswcheckError: the caller chose Chroma, and it cannot be asked.
    """
    chosen = wish.verify
    if chosen in (Verify.NONE, Verify.AUDIT):
        return Verification(chosen)
    try:
        if wish.python is None and not has_chroma():
            raise EngineMissing("chromadb is not installed")
        with reading(root):
            with open_store(root) as view:
                migrations = read_schema(view.database).migrations
            chroma = find_chroma(migrations, wish.python)
            check_room(root, segments)
    except HnswcheckError as error:
        if chosen is Verify.CHROMA:
            raise error.saying(f"--verify chroma: {error}; {OTHERWISE}") from error
        return Verification(Verify.AUDIT, not_asked=str(error))
    return Verification(Verify.CHROMA, required=chosen is Verify.CHROMA, chroma=chroma)


#: What Chroma may add to the copy by migrations and its own writes.
SLACK_BYTES = 64 << 20


def check_room(root: Path, segments: Sequence[SegmentPlan]) -> None:
    """Check that scratch space has room for a copy of each collection, one after the other.

    Raises:
        RepairRefused: there is too little room.
        StoreUnreadable: there is no directory for scratch files.
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


def _index_bytes(segment: SegmentPlan) -> int:
    """The most bytes that the new index and the building of it may take on disk."""
    found = segment.fates.salvage
    m = found.folders[0].header.m if found.folders else DEFAULT_M
    ids = int(found.records.ids.lengths.sum())
    return estimate(len(found.grades), segment.dimension, m, ids)[1]
