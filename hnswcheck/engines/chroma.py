"""The real chromadb as the judge of a new index: what does it do with a copy of the collection?

Chroma is asked in a process of its own, which may die or never answer. The copy has chroma.sqlite3
and the collection's own segment folder; what Chroma migrates, replays or writes stays there.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any

import numpy as np

from hnswcheck.engines.chroma_answers import complaints
from hnswcheck.errors import EngineMissing, StoreChanged, StoreUnreadable
from hnswcheck.formats.arrays import Floats, Ints
from hnswcheck.formats.strings import Strings
from hnswcheck.report import CollectionInfo
from hnswcheck.store.files import states_if_quiet
from hnswcheck.store.releases import is_of_line, numbers_of, step_of
from hnswcheck.store.view import copied_database

SCRIPT = Path(__file__).with_name("chroma_child.py")

#: What opening, reading and writing may take. Slow disks and busy machines are no fault of the
#: index; an engine that hangs is killed at last.
IMPORT_SECONDS, FIXED_SECONDS, BYTES_PER_SECOND = 120.0, 60.0, 1_000_000

#: Errors that tell of the machine, not of the index.
NO_ROOM = ("disk is full", "No space left", "MemoryError", "emory allocation")

#: Settings of Chroma could lead it elsewhere than to the copy.
LEADING = ("CHROMA_", "IS_PERSISTENT", "PERSIST_DIRECTORY", "MIGRATIONS", "ALLOW_RESET")


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What Chroma should find in a collection.

    Attributes:
        segment: the id of its vector segment.
        ids: of all its records.
        sample: int64 (k,): some of the records that have a vector, by their place in ``ids``.
        vectors: float32 (k, dimension), theirs.
        indexed: how many records have a vector.
    """

    collection: CollectionInfo
    segment: str
    ids: Strings
    sample: Ints
    vectors: Floats
    indexed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundChroma:
    """A chromadb that can be asked about a store.

    Attributes:
        python: the interpreter that has it; None for this one.
        is_of_line: the version is one that could have written the store, or behaves like those.
    """

    version: str
    python: str | None = None
    is_of_line: bool = True


class NotAsked(Exception):
    """Chroma could not be asked, for a reason that is not the collection's."""


def has_chroma() -> bool:
    """Whether this interpreter has a chromadb; it is not imported."""
    return find_spec("chromadb") is not None


def find_chroma(migrations: Mapping[str, int], python: str | None = None) -> FoundChroma:
    """A chromadb that works and reads a store with these migrations.

    Args:
        python: the interpreter that must have it; None for this one.

    Raises:
        EngineMissing: there is none.
    """
    version = asked_version(python)
    wrote = step_of(migrations)
    if numbers_of(version) < numbers_of(wrote.first):
        text = f"chromadb {version} is older than the Chroma that wrote the store, {wrote.name}"
        raise EngineMissing(text)
    is_right = is_of_line(version, migrations)
    return FoundChroma(version=version, python=python, is_of_line=is_right)


@cache
def asked_version(python: str | None) -> str:
    """The version of a chromadb that can be imported; a process asks once for each Python.

    Raises:
        EngineMissing: there is none, or it cannot be used.
    """
    try:
        done = _run(["version"], b"", Path.cwd(), IMPORT_SECONDS, python)
    except subprocess.TimeoutExpired:
        raise EngineMissing(f"importing chromadb takes more than {IMPORT_SECONDS:.0f} s") from None
    except NotAsked as error:
        raise EngineMissing(str(error)) from error
    answer: dict[str, str] = {}
    with suppress(ValueError, IndexError):
        answer = json.loads(done.stdout.splitlines()[-1])
    if "version" not in answer:
        why = answer.get("unable") or _last_line(done.stderr) or _death(done.returncode)
        where = "" if python is None else f" with {python}"
        raise EngineMissing(f"chromadb cannot be used{where}: {why}")
    return answer["version"]


def problem_in_chroma(root: Path, expected: Expected, python: str | None = None) -> str:
    """What Chroma does wrong with a collection; empty if nothing.

    The caller sees to it that nothing else in this process has the store open.

    Args:
        python: the interpreter whose chromadb is asked; None for this one.

    Raises:
        NotAsked: there is no room for a copy, or no Python could be started.
        StoreChanged: somebody wrote to the store meanwhile.
    """
    folder = root / expected.segment
    try:
        before = states_if_quiet(root, (folder,))
        with copied_database(root) as database:
            copy = database.parent
            if folder.is_dir():
                shutil.copytree(folder, copy / folder.name, symlinks=True)
            if before is None or states_if_quiet(root, (folder,)) != before:
                raise StoreChanged(f"{root}: it was written while it was copied for Chroma")
            return _examined(copy, expected, python)
    except (StoreUnreadable, OSError) as error:
        raise NotAsked(f"no copy for Chroma: {error}") from error


def _examined(copy: Path, expected: Expected, python: str | None) -> str:
    records, c, vectors = expected.ids, expected.collection, expected.vectors
    ids = [records[i].decode() for i in expected.sample.tolist()]
    new = vectors[0] if len(vectors) else np.ones(c.dimension or 1, np.float32)
    sizes = [path.stat().st_size for path in copy.rglob("*")]
    answers = copy / "answers"
    job = {
        "store": str(copy),
        "tenant": c.tenant,
        "database": c.database,
        "collection": c.name,
        "ids": ids,
        "vectors": [_packed(vector) for vector in vectors],
        "new": _packed(new),
        "indexed": expected.indexed,
        "answers": str(answers),
        "file_bytes": 2 * max(sizes) + (1 << 30),
    }
    seconds = FIXED_SECONDS + sum(sizes) / BYTES_PER_SECOND
    code, says = None, f"no answer for {seconds:.0f} s"
    with suppress(subprocess.TimeoutExpired):
        done = _run(["examine"], json.dumps(job).encode(), copy, seconds, python)
        code, says = done.returncode, _death(done.returncode)
    events, at = _read(answers)
    if code is not None and not at:
        raise NotAsked(f"Chroma did not start: {_last_line(done.stderr) or says}")
    if code:
        failed = events.get(at, {}).get("error", "")
        if code == -getattr(signal, "SIGKILL", 0) or any(text in failed for text in NO_ROOM):
            raise NotAsked(f"Chroma was stopped at {at}: {failed or says}")
        return f"Chroma at {at}: {failed or says}"
    if code is None:
        return f"Chroma at {at or 'its start'}: {says}"
    return next(complaints(events, records, ids, vectors, new, c.space), "")


def _packed(vector: Floats) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _run(
    arguments: Sequence[str], given: bytes, where: Path, seconds: float, python: str | None
) -> subprocess.CompletedProcess[bytes]:
    """Run the script; a ``.env`` file or variables of the user must not lead it elsewhere.

    Another Python must not find the packages of this one either.
    """
    own = [os.fsdecode(get_executable() or sys.executable), "-P"]
    command = [*(own if python is None else [python]), str(SCRIPT), *arguments]
    leading = LEADING if python is None else (*LEADING, "PYTHON")
    kept = {
        name: value for name, value in os.environ.items() if not name.upper().startswith(leading)
    }
    quiet = {"ANONYMIZED_TELEMETRY": "False"}
    try:
        return subprocess.run(
            command,
            input=given,
            capture_output=True,
            cwd=where,
            env=kept | quiet,
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        which = "Python" if python is None else python
        raise NotAsked(f"{which} could not be started: {error.strerror or error}") from error


def _death(code: int) -> str:
    if code >= 0:
        return f"its process ended with {code}"
    with suppress(ValueError):
        return f"its process died of {signal.Signals(-code).name}"
    return f"its process died of signal {-code}"


def _last_line(output: bytes) -> str:
    return (output.decode(errors="replace").splitlines() or [""])[-1][:300]


def _read(answers: Path) -> tuple[dict[str, dict[str, Any]], str]:
    """What each step found, and the last that was begun."""
    events: dict[str, dict[str, Any]] = {}
    at = ""
    lines = answers.read_text("utf-8").splitlines() if answers.exists() else []
    for line in lines:
        with suppress(ValueError):  # the last line of a process that died
            event = json.loads(line)
            at = event.get("begin", at)
            if "step" in event:
                events[event["step"]] = event
    return events, at
