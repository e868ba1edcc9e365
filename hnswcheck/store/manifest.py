"""What lies beside a folder that was moved aside: what it was, why it went, and how it looked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

from hnswcheck.errors import FormatError, StoreChanged, StoreUnreadable
from hnswcheck.formats.text import path_text
from hnswcheck.json_documents import read_document
from hnswcheck.progress import Progress, silent
from hnswcheck.report import Tool
from hnswcheck.store.files import list_directory, look_at, unreadable
from hnswcheck.store.names import MANIFEST, OURS
from hnswcheck.store.watermarks import WatermarkRow

SCHEMA_ID = "hnswcheck.quarantine/1"
LARGEST_MANIFEST = 1 << 28
CHUNK = 1 << 20
DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True, slots=True)
class FilePrint:
    """One file of a folder, as it was when the folder was moved."""

    name: str
    size: int
    mtime_ns: int
    sha256: str


class Owner(TypedDict):
    """The collection that a folder belongs to."""

    id: str
    name: str
    tenant: str
    database: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A folder that was moved aside.

    Attributes:
        folder: its name now.
        segment: its name before.
        time: UTC, of the move.
        why: ids of the findings; empty where a restore made room.
        collection: id, name, tenant and database.
        watermark: the row of the VECTOR watermark that went with it.
        highest_seq_id: the last of the store's WAL at the time.
        log: how many rows of the collection the WAL had, and the seq_id of the last; None if
            unknown.
        accepted: by grade, ids of records whose vectors in what took its place are no better.
        missing: records that the index lacked, after replay; None if unknown.
        strangers: ids of the index that sqlite lacked, after replay; None if unknown.
        searchable: records that stayed searchable, from the WAL.
        after_repair: records that a repair can make searchable again.
        files: what was in it.
        report: the segment's report, as in ``hnswcheck.report/1``. No restore depends on its form.
        tool: who wrote this; its form is as free.
    """

    folder: str
    segment: str
    time: str
    why: tuple[str, ...]
    collection: Owner
    watermark: WatermarkRow | None
    highest_seq_id: int
    missing: int | None
    strangers: tuple[str, ...] | None
    searchable: int
    after_repair: int
    files: tuple[FilePrint, ...]
    report: Any = None
    log: tuple[int, int] | None = None
    accepted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tool: Any = field(default_factory=lambda: asdict(Tool()))
    schema: str = SCHEMA_ID

    def to_json(self) -> bytes:
        """The content of the file."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


def as_text(id: bytes) -> str:
    """An id as JSON can hold it, whatever its bytes: no two become the same."""
    return id.decode("utf-8", "surrogateescape")


def from_text(id: str) -> bytes:
    """The other way round."""
    return id.encode("utf-8", "surrogateescape")


def manifests_of(folders: Iterable[Path]) -> Iterator[Manifest]:
    """The manifests of those among them that are ours, as far as they can be read."""
    for folder in folders:
        if OURS.fullmatch(folder.name):
            with suppress(StoreUnreadable):
                yield read_manifest(folder.with_name(folder.name + MANIFEST))


def read_manifest(path: Path) -> Manifest:
    """Read the manifest of a folder.

    Args:
        path: the manifest, not the folder.

    Raises:
        StoreUnreadable: it is missing, or none of ours.
    """
    try:
        state = look_at(path)
        if state is None or not state.is_file or state.size > LARGEST_MANIFEST:
            raise FormatError("no manifest")
        manifest = read_document(path.read_bytes(), Manifest, SCHEMA_ID, "manifest")
        _check_place(manifest, path)
    except OSError as error:
        raise unreadable(path, error) from error
    except FormatError as error:
        raise StoreUnreadable(path_text(f"{path}: {error}")) from error
    return manifest


def _check_place(manifest: Manifest, path: Path) -> None:
    try:
        datetime.fromisoformat(manifest.time)
    except ValueError as error:
        raise FormatError(f"invalid manifest at $.time: {error}") from error
    named = OURS.fullmatch(manifest.folder)
    if manifest.folder + MANIFEST != path.name or named is None:
        raise FormatError("invalid manifest at $.folder: not the folder beside it")
    if named.group(1) != manifest.segment:
        raise FormatError("invalid manifest at $.segment: not that of the folder")


def free_name(
    root: Path, segment: str, now: datetime, what: str = "quarantined", suffix: str = ""
) -> str:
    """What a segment's folder can be called that is moved aside at this time; or what is new.

    Its number is above those of the same second, so that the later of two is known.
    """
    stem = f"{segment}.{what}-{now:%Y%m%dT%H%M%SZ}-"
    taken = (path.name.removesuffix(suffix or MANIFEST) for path in root.iterdir())
    numbers = (name.removeprefix(stem) for name in taken if name.startswith(stem))
    highest = max((int(number) for number in numbers if DIGITS.fullmatch(number)), default=0)
    return f"{stem}{highest + 1}{suffix}"


def file_prints(folder: Path, progress: Progress = silent) -> tuple[FilePrint, ...]:
    """Every file of a folder, read once.

    Raises:
        StoreChanged, StoreUnreadable: it could not be read.
    """
    prints = []
    states = list_directory(folder)
    done, total = 0, sum(state.size for state in states if state.is_file)
    for state in states:
        if not state.is_file:  # none of Chroma's: that it is there is all that is known of it
            prints.append(FilePrint(path_text(state.name), 0, 0, ""))
            continue
        digest = hashlib.sha256()
        try:
            with (folder / state.name).open("rb") as file:
                while chunk := file.read(CHUNK):
                    digest.update(chunk)
                    done += len(chunk)
                    progress(done, total, path_text(state.name))
        except FileNotFoundError as error:
            raise StoreChanged(f"{folder / state.name} vanished") from error
        except OSError as error:
            raise unreadable(folder / state.name, error) from error
        name = path_text(state.name)
        prints.append(FilePrint(name, state.size, state.mtime_ns, digest.hexdigest()))
    return tuple(prints)
