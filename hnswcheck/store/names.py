"""Names in a persist directory: segment folders, what was moved aside, what hnswcheck leaves."""

from __future__ import annotations

import re
from pathlib import Path

from hnswcheck.store.files import list_directory

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

#: ``<segment>.drift-*``, ``.corrupt-*`` of MemPalace and others; ``.quarantined-*`` is ours.
QUARANTINED = re.compile(rf"({UUID.pattern})\.(?:drift-|corrupt-|quarantine)")

#: ``<segment>.quarantined-<UTC time>-<n>``, with a manifest of that name and this suffix beside it.
OURS = re.compile(rf"({UUID.pattern})\.quarantined-\d{{8}}T\d{{6}}Z-\d+")

MANIFEST = ".json"

#: A new index that is to take the place of a segment's folder.
REBUILT = re.compile(rf"({UUID.pattern})\.rebuilt-\d{{8}}T\d{{6}}Z-\d+")

#: Records that a repair deleted, as JSON lines.
DROPPED = re.compile(rf"({UUID.pattern})\.dropped-\d{{8}}T\d{{6}}Z-\d+\.jsonl")

#: What hnswlib writes before it becomes the files of a new index.
SCRATCH = ".scratch"

#: There while an action is under way, or after one that was stopped.
JOURNAL = "hnswcheck.journal"


def quarantined_folders(root: Path) -> dict[str, list[Path]]:
    """By segment, the folders in a persist directory that were once its, newest name first."""
    found: dict[str, list[Path]] = {}
    for state in reversed(list_directory(root)):
        if state.is_directory and (name := QUARANTINED.match(state.name)):
            found.setdefault(name.group(1), []).append(root / state.name)
    return found
