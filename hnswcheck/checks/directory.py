"""What lies in the persist directory besides the segments that are in use?"""

from __future__ import annotations

from collections.abc import Collection as AnyOf
from collections.abc import Iterator
from pathlib import Path

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.text import path_text
from hnswcheck.report import Finding, finding
from hnswcheck.store.catalog import Collection
from hnswcheck.store.files import FileState
from hnswcheck.store.names import JOURNAL, QUARANTINED, UUID
from hnswcheck.store.segment import why_unsafe


def check_folders(
    listing: AnyOf[FileState], segments: AnyOf[str], discarded: AnyOf[str], sampler: Sampler
) -> Iterator[Finding]:
    """Findings about folders of the persist directory.

    Args:
        segments: the ids of all segments that sqlite knows.
        discarded: ids of segments whose folders Chroma is about to remove.
    """
    folders = [state.name for state in listing if state.is_directory or state.is_symlink]
    others = [name for name in folders if UUID.fullmatch(name) and name not in segments]
    leaving = [name for name in others if name in discarded]
    if leaving:
        names = sampler.places(map(path_text, leaving))
        yield finding("segment-folder-discarded", len(leaving), names)
    unclaimed = [name for name in others if name not in discarded]
    if unclaimed:
        names = sampler.places(map(path_text, unclaimed))
        yield finding("segment-folder-unclaimed", len(unclaimed), names)
    aside = [name for name in folders if QUARANTINED.match(name)]
    if aside:
        names = sampler.places(map(path_text, aside))
        yield finding("segment-folder-quarantined", len(aside), names)
    if any(state.name == JOURNAL for state in listing):
        yield finding("action-unfinished", 1, [JOURNAL])


def check_segment_rows(collections: AnyOf[Collection], sampler: Sampler) -> Iterator[Finding]:
    """Collections that sqlite gives no VECTOR or no METADATA segment."""
    lacking = [c for c in collections if c.vector is None or c.metadata is None]
    if lacking:
        names = sampler.places(collection.name for collection in lacking)
        yield finding("segment-row-missing", len(lacking), names)


def check_segment_path(root: Path, segment: str) -> Iterator[Finding]:
    """A segment's folder must be a plain folder in the persist directory."""
    if problem := why_unsafe(root, segment):
        yield finding("segment-path-unsafe", 1, [segment], *problem)
