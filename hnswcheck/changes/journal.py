"""All or nothing: what an action is about to do is on disk before it begins.

An action moves folders within the persist directory and changes rows of sqlite. Its journal names
all of that. Then manifests are written, folders renamed, and the rows committed, in this order,
each durable before the next; the journal goes last. The last rename decides: whoever finds the
journal finishes an action whose folders have all moved, and takes back one where some have not.

What happens to the store between the stop and that is respected: a folder or a watermark that
Chroma has written anew is left as it is.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hnswcheck.changes.delete_records import Drop, all_gone, drop_records
from hnswcheck.changes.lock import Held
from hnswcheck.changes.log_end import LogEnd
from hnswcheck.changes.watermark import (
    WatermarkChange,
    is_written,
    write_watermark,
)
from hnswcheck.durable import sync_directory, write_durably
from hnswcheck.errors import ActionFailed, FormatError, StoreChanged, StoreUnreadable
from hnswcheck.formats.text import path_text
from hnswcheck.json_documents import read_document
from hnswcheck.store.files import list_directory, look_at
from hnswcheck.store.names import DROPPED, JOURNAL, MANIFEST, OURS, REBUILT, SCRATCH, UUID
from hnswcheck.store.watermarks import fits

SCHEMA_ID = "hnswcheck.journal/1"
#: What a journal is called until it is complete.
DRAFT = JOURNAL + ".new"
LARGEST_JOURNAL = 1 << 26

Action = Literal["quarantine", "restore", "repair"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What happens to one segment.

    Attributes:
        segment: the id of the vector segment.
        moves: folders to rename, (from, to), by their names in the persist directory.
        watermarks: the rows of ``max_seq_id`` that change.
        adds: names of the manifests that are written.
        removes: names of the manifests that are removed.
        drops: records that are deleted.
        log_end: the row that an empty log gets.
    """

    segment: str
    moves: tuple[tuple[str, str], ...]
    watermarks: tuple[WatermarkChange, ...] = ()
    adds: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    drops: tuple[Drop, ...] = ()
    log_end: LogEnd | None = None

    def is_done(self, root: Path) -> bool:
        """Whether the last move was made. Chroma may make the segment's own folder anew."""
        if not self.moves:
            return True
        source, target = self.moves[-1]
        if source == self.segment:
            return _is_there(root / target)
        return not _is_there(root / source)

    def is_overtaken(self, root: Path) -> bool:
        """Whether Chroma has made a folder anew in the place of one that went."""
        made_anew = bool(self.moves) and self.moves[-1][0] == self.segment
        return made_anew and _holds_anything(root / self.segment)

    def change_rows(self, connection: sqlite3.Connection) -> bool:
        """Change what is in sqlite; False if a watermark is not what it was."""
        written = [write_watermark(connection, change) for change in self.watermarks]
        drop_records(connection, self.drops)
        if self.log_end is not None:
            self.log_end.write(connection)
        return all(written)

    def is_committed(self, connection: sqlite3.Connection) -> bool:
        """Whether anything in sqlite was changed."""
        gone = bool(self.drops) and all_gone(connection, self.drops)
        ended = self.log_end is not None and self.log_end.is_written(connection)
        return gone or ended or any(is_written(connection, change) for change in self.watermarks)


def perform(
    held: Held, action: Action, steps: Sequence[Step], manifests: Mapping[str, bytes]
) -> None:
    """Carry out an action whole, or not at all.

    Args:
        manifests: the content of every manifest that a step adds.

    Raises:
        ActionFailed: the system refused something; the store is as it was.
        StoreChanged: a watermark is not what it was; the store is as it was.
    """
    with _failing(f"{held.root}: nothing was changed"), _taken_back(held, steps):
        _write_journal(held.root, action, steps)
        for name, content in manifests.items():
            write_durably(held.root / name, content)
        for step in steps:
            for source, target in step.moves:
                sync_directory(held.root)  # no folder may move before its manifest is there
                (held.root / source).rename(held.root / target)
        sync_directory(held.root)
        for step in steps:
            if not step.change_rows(held.connection):
                raise StoreChanged(f"{held.root}: a watermark of {step.segment} has changed")
        held.commit()
    with _failing(f"{held.root}: done, but {JOURNAL} could not be removed"):
        _clean_up_whole(held.root, steps)


def recover(held: Held) -> list[str]:
    """Finish or take back what an earlier action left; what was done, a line per segment.

    A rebuilt index that never took its place goes.

    Raises:
        StoreUnreadable: the journal is none of ours.
        ActionFailed: the system refused something; the journal stays.
    """
    with _failing(f"{held.root}: an unfinished action could not be finished"):
        _remove(held.root / DRAFT)
        if look_at(held.root / JOURNAL) is None:
            remove_rebuilt(held.root)
            return []
        action, steps = _read_journal(held.root)
        done = [step for step in steps if step.is_done(held.root)]
        if len(done) < len(steps):  # so nothing was committed
            done = [step for step in done if step.is_overtaken(held.root)]
        _take_back(held.root, [step for step in steps if step not in done])
        sync_directory(held.root)
        for step in done:
            if not step.is_overtaken(held.root):
                step.change_rows(held.connection)
        held.commit()
        _clean_up(held.root, done)
        remove_rebuilt(held.root)
    said = {True: "finished", False: "took back"}
    return [f"{said[step in done]} the {action} of segment {step.segment}" for step in steps]


def remove_rebuilt(root: Path) -> None:
    """Remove new indexes that are not in the place of any segment's folder.

    Raises:
        OSError: the system refused.
    """
    for state in list_directory(root):
        if state.is_directory and REBUILT.fullmatch(state.name):
            shutil.rmtree(root / state.name)
        elif state.is_file and REBUILT.fullmatch(state.name.removesuffix(SCRATCH)):
            (root / state.name).unlink()


def is_unfinished(root: Path) -> bool:
    """Whether an action was stopped before its end."""
    return look_at(root / JOURNAL) is not None


def _write_journal(root: Path, action: Action, steps: Sequence[Step]) -> None:
    content = _as_json(_Journal(SCHEMA_ID, action, tuple(steps)))
    draft = root / DRAFT
    _remove(draft)
    write_durably(draft, json.dumps(content, indent=1).encode())
    draft.rename(root / JOURNAL)
    sync_directory(root)


def _read_journal(root: Path) -> tuple[str, list[Step]]:
    path = root / JOURNAL
    state = look_at(path)
    try:
        if state is None or not state.is_file or state.size > LARGEST_JOURNAL:
            raise FormatError("not a file that hnswcheck wrote")
        content = path.read_bytes()
        journal = read_document(content, _Journal, SCHEMA_ID, "journal")
        if json.loads(content) != json.loads(json.dumps(_as_json(journal))):
            raise FormatError("invalid journal: it lacks a member or has one more")
        for number, step in enumerate(journal.steps):
            if not _is_ours(step):
                says = "it names what hnswcheck does not write"
                raise FormatError(f"invalid journal step at $.steps[{number}]: {says}")
    except FormatError as error:
        text = f"{path}: {error}; move it away once you know what it is"
        raise StoreUnreadable(path_text(text)) from error
    return journal.action, list(journal.steps)


@dataclass(frozen=True, slots=True)
class _Journal:
    schema: str
    action: Action
    steps: tuple[Step, ...]


def _as_json(journal: _Journal) -> dict[str, Any]:
    """A journal as it is written: a step that leaves the log alone says nothing of it."""
    content = asdict(journal)
    for step in content["steps"]:
        if step["log_end"] is None:
            del step["log_end"]
    return content


def _is_ours(step: Step) -> bool:
    """Whether it names nothing but what is its segment's, and numbers that sqlite can hold."""
    manifests = (*step.adds, *step.removes)
    return (
        all(UUID.fullmatch(id) for id in (step.segment, *(c.segment for c in step.watermarks)))
        and bool(step.moves or (step.watermarks and not manifests))
        and all(_belongs(name, step.segment) for move in step.moves for name in move)
        and all(name.endswith(MANIFEST) for name in manifests)
        and all(_belongs(name.removesuffix(MANIFEST), step.segment) for name in manifests)
        and all(fits(*drop) for drop in step.drops)
        and (step.log_end is None or fits(step.log_end.seq_id))
    )


def _belongs(name: str, segment: str) -> bool:
    ours = (
        OURS.fullmatch(name)
        or REBUILT.fullmatch(name.removesuffix(SCRATCH))
        or DROPPED.fullmatch(name)
    )
    return name == segment or (ours is not None and ours.group(1) == segment)


@contextmanager
def _taken_back(held: Held, steps: Sequence[Step]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        try:
            committed = _is_committed(held, steps)
            if not committed:  # else a signal came after the last instruction
                _take_back(held.root, steps)
                _clean_up(held.root, ())
                _remove(held.root / DRAFT)
            elif not isinstance(error, (OSError, sqlite3.Error)):
                _clean_up(held.root, steps)
        except (OSError, sqlite3.Error) as second:
            raise ActionFailed(
                f"{held.root}: stopped half way ({_why(error)}) and could not go back ({second});"
                " the next quarantine or restore will"
            ) from error
        if committed and isinstance(error, (OSError, sqlite3.Error)):
            raise ActionFailed(
                f"{held.root}: done, but the system did not confirm it ({_why(error)});"
                " the next quarantine or restore makes sure"
            ) from error
        raise


def _is_committed(held: Held, steps: Sequence[Step]) -> bool:
    """Whether the watermarks were changed for good: a failed COMMIT may end a transaction, too."""
    if held.connection.in_transaction:
        return False
    return any(step.is_committed(held.connection) for step in steps)


def _take_back(root: Path, steps: Sequence[Step]) -> None:
    for step in reversed(steps):
        for source, target in reversed(step.moves):
            if _is_there(root / target) and not _holds_anything(root / source):
                (root / target).rename(root / source)
                sync_directory(root)  # its manifest goes only when it is back for good
    for name in (name for step in steps for name in step.adds):
        if not _is_there(root / name.removesuffix(MANIFEST)):
            _remove(root / name)


def _clean_up(root: Path, done: Sequence[Step]) -> None:
    for step in done:
        for name in step.removes:
            _remove(root / name)
    sync_directory(root)
    _remove(root / JOURNAL)
    sync_directory(root)


def _clean_up_whole(root: Path, done: Sequence[Step]) -> None:
    """The same, even where a signal comes."""
    try:
        _clean_up(root, done)
    except OSError:
        raise
    except BaseException:
        _clean_up(root, done)
        raise


def _remove(path: Path) -> None:
    if _is_there(path):  # on what is read-only, even removing nothing fails
        path.unlink()


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _holds_anything(path: Path) -> bool:
    """Whether something is there that is not an empty folder."""
    if path.is_symlink() or not path.is_dir():
        return _is_there(path)
    return any(path.iterdir())


@contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise ActionFailed(f"{what}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    if isinstance(error, OSError):
        files = f" ({Path(error.filename).name})" if isinstance(error.filename, str) else ""
        return f"{error.strerror or error}{files}"
    return str(error) or type(error).__name__
