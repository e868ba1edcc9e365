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
from typing import Any

from hnswcheck.errors import FormatError, StoreChanged, StoreUnreadable
from hnswcheck.formats.text import path_text
from hnswcheck.progress import Progress, silent
from hnswcheck.report import Tool
from hnswcheck.store.files import list_directory, look_at, unreadable
from hnswcheck.store.names import MANIFEST, OURS
from hnswcheck.store.watermarks import WatermarkRow, watermark_from_json

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


@dataclass(frozen=True, slots=True)
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
        report: the segment's report, as in ``hnswcheck.report/1``.
    """

    folder: str
    segment: str
    time: str
    why: tuple[str, ...]
    collection: dict[str, str]
    watermark: WatermarkRow | None
    highest_seq_id: int
    missing: int | None
    strangers: tuple[str, ...] | None
    searchable: int
    after_repair: int
    files: tuple[FilePrint, ...]
    report: dict[str, Any] | None
    log: tuple[int, int] | None = None
    accepted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tool: Tool = field(default_factory=Tool)
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
        return _parsed(path, json.loads(path.read_bytes()))
    except OSError as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError, FormatError) as error:
        raise StoreUnreadable(path_text(f"{path}: {error}")) from error


def _parsed(path: Path, found: Any) -> Manifest:
    match found:
        case {
            "schema": "hnswcheck.quarantine/1",
            "folder": str(folder),
            "segment": str(segment),
            "time": str(time),
            "why": [*why],
            "collection": {"id": str(), "name": str(), "tenant": str(), "database": str()},
            "watermark": watermark,
            "highest_seq_id": int(highest),
            "missing": int() | None as missing,
            "strangers": [*_] | None as strangers,
            "searchable": int(searchable),
            "after_repair": int(after_repair),
            "files": [*files],
        }:
            pass
        case _:
            raise FormatError("not a manifest of this version")
    datetime.fromisoformat(time)
    named = OURS.fullmatch(folder)
    if folder + MANIFEST != path.name or named is None or named.group(1) != segment:
        raise FormatError("not the manifest of the folder beside it")
    return Manifest(
        folder,
        segment,
        time,
        tuple(map(str, why)),
        {key: str(value) for key, value in found["collection"].items()},
        watermark_from_json(watermark),
        highest,
        missing,
        None if strangers is None else tuple(map(str, strangers)),
        searchable,
        after_repair,
        tuple(map(_file_print, files)),
        None,
        _log(found.get("log")),
        _accepted(found.get("accepted", {})),
    )


def _log(found: Any) -> tuple[int, int] | None:
    match found:
        case [int(rows), int(last)]:
            return rows, last
        case None:
            return None
        case _:
            raise FormatError("invalid log")


def _accepted(found: Any) -> dict[str, tuple[str, ...]]:
    match found:
        case dict() if all(isinstance(ids, list) for ids in found.values()):
            return {str(grade): tuple(map(str, ids)) for grade, ids in found.items()}
        case _:
            raise FormatError("invalid list of accepted records")


def _file_print(found: Any) -> FilePrint:
    match found:
        case {"name": str(name), "size": int(size), "mtime_ns": int(mtime), "sha256": str(digest)}:
            return FilePrint(name, size, mtime, digest)
        case _:
            raise FormatError("invalid list of files")


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
