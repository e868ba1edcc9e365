"""Actions on a store that are cut short: by kill -9, by an error, by a loss of power.

The tracer (tracer.c) finds every system call of an action that can change files. From what
it wrote down, :class:`Disk` derives what a loss of power can leave: nothing that was not synced
needs to be there, and what is there need not be older than what is not.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from oracle import copied_database
from stores import snapshot

import hnswcheck
from hnswcheck.auditing import runner
from hnswcheck.changes import processes as users
from hnswcheck.store import files, view

DATABASE = "chroma.sqlite3"
JOURNAL = "hnswcheck.journal"
DRAFT = "hnswcheck.journal.new"
SOURCE = Path(__file__).with_name("tracer.c")

#: Modes of the tracer.
LOOK, KILL, FAIL_ONCE, FAIL_ON, SIGNAL = range(5)

#: What a call fails with where it is not ENOSPC.
ERRORS = {"fsync": errno.EIO, "fdatasync": errno.EIO, "unlink": errno.EIO}

#: The end of a folder's name that tells when it was moved.
MOVED = re.compile(r"(\.quarantined-)\d{8}T\d{6}Z-\d+")


def build_tracer(folder: Path) -> Path | None:
    """Compile the tracer; None where there is no C compiler or no Linux."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        return None
    library = folder / "tracer.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SOURCE], check=True)
    return library


def can_fail(tracer: Path) -> bool:
    """Whether the tracer knows how to refuse a call here."""
    return bool(ctypes.CDLL(os.fspath(tracer)).can_fail())


def prepare_worker(scratch: Path) -> None:
    """No time is spent on others: nobody here writes to the stores, or has them open.

    Args:
        scratch: for what is left in $TMPDIR by those who are killed.
    """
    os.environ["TMPDIR"] = str(scratch)
    view.JOURNAL_SECONDS = 0.02
    files.CLOCK_TICK_NS = 10_000_000
    runner.REST_SECONDS = 0.0
    users.PROCESSES = Path("/nowhere")
    sys.modules["psutil"] = None  # type: ignore[assignment]


# --- Actions -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Action:
    """A call of the library that changes a store."""

    name: str
    quarantine: str = ""

    def on(self, store: Path) -> str:
        """Do it; empty, or the error."""
        try:
            match self.name:
                case "quarantine":
                    hnswcheck.quarantine(store, accept_loss=True)
                case "repair":
                    hnswcheck.repair(store, verify="audit")
                case _:
                    hnswcheck.restore(store, self.quarantine)
        except hnswcheck.HnswcheckError as error:
            return f"{type(error).__name__}: {error}"
        return ""


@dataclass(frozen=True, slots=True)
class Traced:
    """How an action went.

    Attributes:
        calls: how many it made that can change files; -1 if it could not be traced.
        said: its error; empty if there was none.
        killed: by SIGKILL.
    """

    calls: int
    said: str
    killed: bool


def traced(
    tracer: Path,
    action: Callable[[], str],
    mode: int = LOOK,
    at: int = 0,
    error: int = 0,
    log: Path | None = None,
) -> Traced:
    """Let a child of this process do something under the tracer."""
    library = ctypes.CDLL(os.fspath(tracer))
    library.follow.restype = ctypes.c_long
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setpgid(0, 0)
            if mode == LOOK:
                _volunteer(library)
            else:
                sys.addaudithook(_when_to_write(partial(_volunteer, library)))
            said = action()
            library.mark(ctypes.c_long(0))
            os.write(writing, said.encode())
        except BaseException as problem:  # noqa: BLE001 - a forked child must not go on
            os.write(writing, f"unexpected {problem!r}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    ended = ctypes.c_int()
    calls = library.follow(
        child,
        mode,
        ctypes.c_long(at),
        error,
        None if log is None else os.fsencode(log),
        ctypes.byref(ended),
    )
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    killed = os.WIFSIGNALED(ended.value) and os.WTERMSIG(ended.value) == signal.SIGKILL
    return Traced(calls, said, killed)


def may_trace(tracer: Path) -> bool:
    """Whether the system lets a process follow its child."""
    return traced(tracer, lambda: "traced").said == "traced"


def _volunteer(library: ctypes.CDLL) -> None:
    library.volunteer()
    library.mark(ctypes.c_long(1))


def _when_to_write(begin: Callable[[], None]) -> Callable[[str, tuple[object, ...]], None]:
    """Begin when a database is opened for writing, or a new index is begun.

    Nothing changes before, as LOOK sees.
    """
    begun = False

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal begun
        locks = event == "sqlite3.connect" and "mode=rw" in str(arguments[0])
        builds = event == "os.mkdir" and ".rebuilt-" in str(arguments[0])
        if (locks or builds) and not begun:
            begun = True
            begin()

    return hear


# --- What a store is, whenever it was made so ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class Essence:
    """All of a store but the time at which a folder was moved aside.

    Attributes:
        folders: name and files (name, size, digest) of each.
        manifests: what each says of the folder beside it.
        dump: what chroma.sqlite3 holds once sqlite has rolled back what was not committed.
        watermarks: with their rowids, which a dump leaves out.
        others: what else there is.
    """

    folders: tuple[tuple[str, tuple[tuple[str, int, str], ...]], ...]
    manifests: tuple[str, ...]
    dump: tuple[str, ...]
    watermarks: tuple[tuple[int, str, str, object], ...]
    others: tuple[str, ...]

    def watermarks_by_segment(self) -> list[tuple[str, object]]:
        return [
            (segment, (rowid, type_, value)) for rowid, segment, type_, value in self.watermarks
        ]

    def is_but_for_others(self, other: Essence) -> bool:
        """Whether it is the same but for what else there is."""
        return replace(self, others=()) == replace(other, others=())


def essence(store: Path) -> Essence:
    """Read it, from a copy where sqlite would write."""
    folders, manifests, others = [], [], []
    for path in sorted(store.iterdir()):
        if path.is_dir():
            folders.append((_timeless(path.name), tuple(_files(path))))
        elif path.suffix == ".json" and (store / path.stem).is_dir():
            manifests.append(_timeless_manifest(path))
        elif path.name not in (DATABASE, f"{DATABASE}-journal"):
            others.append(path.name)
    with copied_database(store) as database:
        dump = tuple(database.iterdump())
        query = "SELECT rowid, segment_id, typeof(seq_id), seq_id FROM max_seq_id ORDER BY rowid"
        watermarks = tuple(database.execute(query))
    return Essence(
        tuple(sorted(folders)), tuple(sorted(manifests)), dump, watermarks, tuple(others)
    )


def _files(folder: Path) -> Iterator[tuple[str, int, str]]:
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        yield path.name, len(content), hashlib.sha256(content).hexdigest()


def _timeless(name: str) -> str:
    return MOVED.sub(r"\1T", name)


def _timeless_manifest(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return f"{_timeless(path.name)} is none"
    assert found["folder"] == path.stem
    return _timeless(json.dumps({**found, "time": ""}, sort_keys=True))


def data_files(store: Path) -> Counter[tuple[int, str]]:
    """Size and digest of every file of every segment, wherever it lies."""
    folders = (path for path in store.iterdir() if path.is_dir())
    return Counter((size, digest) for folder in folders for _, size, digest in _files(folder))


def contents(store: Path) -> dict[str, tuple[int, int, str]]:
    """Mode, content and the time of the last change of all in a store.

    Without the time of folders, in which names come and go, and of chroma.sqlite3, which sqlite
    has to write to take back what it wrote.
    """
    found = {}
    for name, trace in snapshot(store).items():
        timeless = (store / name).is_dir() or name == DATABASE
        found[name] = (trace.mode, 0 if timeless else trace.mtime_ns, trace.content)
    del found["."]
    return found


def unfinished(store: Path) -> bool:
    return os.path.lexists(store / JOURNAL)


# --- kill -9 -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """An action to cut short, on copies of a store.

    Attributes:
        scratch: where the copies go.
    """

    tracer: Path
    action: Action
    base: Path
    scratch: Path

    def copy(self, name: str) -> Path:
        store = self.scratch / name
        shutil.copytree(self.base, store, symlinks=True)
        return store

    def empty_folders(self) -> list[str]:
        return [
            path.name for path in self.base.iterdir() if path.is_dir() and not any(path.iterdir())
        ]

    def look(self) -> Traced:
        """Do it without a stop, on the copy "undisturbed"; what it did is in "calls"."""
        store = self.copy("undisturbed")
        return traced(self.tracer, lambda: self.action.on(store), log=self.scratch / "calls")

    def look_at_failure(self, number: int) -> Traced:
        """Let the n-th call fail, on the copy "undone"; what it did then is in "undoing"."""
        store, log = self.copy("undone"), self.scratch / "undoing"
        return traced(
            self.tracer, lambda: self.action.on(store), FAIL_ONCE, number, errno.ENOSPC, log
        )


@dataclass(frozen=True, slots=True)
class Stop:
    """What a stop left, and what the next run made of it.

    Attributes:
        left: the store as it was left.
        journal: an unfinished action was there.
        findings: of an audit of what was left; None if there was none.
        touched: what that audit changed.
        files, files_after: the data files, before and after the next run.
        said: the error of the next run.
        settled: the store after it.
        path: where that is.
    """

    number: int
    killed: bool
    left: Essence
    journal: bool
    findings: tuple[str, ...] | None
    touched: tuple[str, ...]
    files: Counter[tuple[int, str]]
    said: str
    files_after: Counter[tuple[int, str]]
    settled: Essence
    path: Path


def kill_at(case: Case, number: int) -> Stop:
    """Kill an action right before its n-th call that can change files, then look, and go on."""
    store = case.copy(f"killed-{number}")
    done = traced(case.tracer, lambda: case.action.on(store), KILL, number)
    return examine(case.action, store, number, done.killed)


def examine(
    action: Action, store: Path, number: int, killed: bool = True, audited: bool = True
) -> Stop:
    """Look at what a stop left, and let the next run go on."""
    findings, touched = _audited(store) if audited else (None, ())
    left, journal, files = essence(store), unfinished(store), data_files(store)
    said = action.on(store)
    return Stop(
        number,
        killed,
        left,
        journal,
        findings,
        touched,
        files,
        said,
        data_files(store),
        essence(store),
        store,
    )


def _audited(store: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    before = snapshot(store)
    findings = tuple(sorted(found.id for found in hnswcheck.audit(store).findings))
    return findings, _different(before, snapshot(store))


def _different(one: Mapping[str, object], other: Mapping[str, object]) -> tuple[str, ...]:
    names = one.keys() | other.keys()
    return tuple(sorted(name for name in names if one.get(name) != other.get(name)))


def kill_only(case: Case, store: Path, number: int) -> bool:
    """Kill an action on a copy, and look no further."""
    return traced(case.tracer, lambda: case.action.on(store), KILL, number).killed


@dataclass(frozen=True, slots=True)
class Known:
    """A case, what its store was and becomes when nothing stops it, and the calls that do it."""

    case: Case
    before: Essence
    after: Essence
    calls: list[Call]

    @property
    def numbers(self) -> range:
        return range(1, len(self.calls) + 1)

    def number_of(self, name: str, file: str = "", nth: int = 1) -> int:
        """Where the n-th call of this name is, to a file whose name ends so."""
        found = [
            number
            for number, call in enumerate(self.calls, 1)
            if call.name == name and call.arguments[0].endswith(file.encode())
        ]
        return found[nth - 1]


def known(case: Case, workers: ProcessPoolExecutor) -> Known:
    """Let an action happen once, unstopped."""
    done = workers.submit(case.look).result()
    assert done.said == ""
    after = essence(case.scratch / "undisturbed")
    calls = read_calls(case.scratch / "calls")
    assert done.calls == len(calls) > 0
    # Nothing else can be told by comparing with a run that nothing stopped.
    assert after.others == ()
    assert len(after.manifests) == sum(".quarantined-" in name for name, _ in after.folders)
    return Known(case, essence(case.base), after, calls)


# --- Errors --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Refusal:
    """What an error of the system led to.

    Attributes:
        said: the error of the action, and of the next run.
        changed: what was different afterwards, as :func:`contents` sees it.
        left: the store then.
        journal: an unfinished action was there.
        settled: the store after the next run; None where there was nothing to finish.
    """

    number: int
    said: str
    said_next: str
    changed: tuple[str, ...]
    left: Essence
    journal: bool
    settled: Essence | None


def fail_at(case: Case, number: int, mode: int, error: int) -> Refusal:
    """Let the n-th call that can change files fail, and with FAIL_ON those after it, too."""
    store = case.copy(f"failed-{number}-{mode}-{error}")
    before = contents(store)
    said = traced(case.tracer, lambda: case.action.on(store), mode, number, error).said
    after = contents(store)
    changed = _different(before, after)
    left, journal = essence(store), unfinished(store)
    said_next = case.action.on(store) if said else ""
    settled = essence(store) if said else None
    shutil.rmtree(store)
    return Refusal(number, said, said_next, changed, left, journal, settled)


def failures(what: Known, workers: ProcessPoolExecutor, mode: int) -> list[Refusal]:
    """Let every call of an action fail, each on a copy of its own."""
    count = len(what.calls)
    errors = [ERRORS.get(call.name, errno.ENOSPC) for call in what.calls]
    return list(workers.map(fail_at, [what.case] * count, what.numbers, [mode] * count, errors))


def is_one_line(said: str) -> bool:
    return said.startswith("ActionFailed: ") and "\n" not in said


# --- Loss of power -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Call:
    """A line of the tracer."""

    name: str
    result: int
    number: int
    arguments: tuple[bytes, ...]


def read_calls(log: Path) -> list[Call]:
    """What the tracer wrote down."""
    calls = []
    for line in log.read_text().splitlines():
        name, result, number, *arguments = line.split("\t")
        calls.append(Call(name, int(result), int(number), tuple(map(bytes.fromhex, arguments))))
    return calls


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes at a place; with none, the file ends there."""

    at: int
    data: bytes | None

    def half(self) -> Write:
        return self if self.data is None else Write(self.at, self.data[: len(self.data) // 2])

    def on(self, content: bytes) -> bytes:
        if self.data is None:
            return content[: self.at].ljust(self.at, b"\0")
        content = content.ljust(self.at, b"\0")
        return content[: self.at] + self.data + content[self.at + len(self.data) :]


@dataclass(slots=True)
class File:
    """What of a file is on the disk, what of it is not yet, and where the next write goes."""

    durable: bytes
    pending: list[Write] = field(default_factory=list)
    position: int = 0


@dataclass(frozen=True, slots=True)
class Naming:
    """One change of names, which happens whole: files that lose, and get, a name."""

    loses: str | None
    gets: tuple[str, str | int] | None


#: A folder by the name it began with, or a file by its number.
Node = str | int
#: What lies in a directory: the content of a file, or the name a folder began with.
State = tuple[tuple[str, bytes | str], ...]
#: Calls that change neither names nor contents.
NEUTRAL = ("fchown", "fchmod")
#: All subsets of so many changes are tried; of more, all, none, and each alone.
ALL_SUBSETS = 4


class Disk:
    """A persist directory whose system does only what it must: keep what was synced."""

    def __init__(self, store: Path, root: Path) -> None:
        self.root = os.fsencode(root)
        self.files: list[File] = []
        self.names: dict[str, Node] = {}
        for path in sorted(store.iterdir()):
            if path.is_dir():
                self.names[path.name] = path.name
            else:
                self.names[path.name] = self.add(path.read_bytes())
        self.durable = dict(self.names)
        self.pending: list[Naming] = []

    def add(self, content: bytes) -> int:
        self.files.append(File(content))
        return len(self.files) - 1

    def take(self, call: Call) -> None:
        """Let a call happen, as far as those see who read without a loss of power."""
        if call.result < 0 or call.name in NEUTRAL:
            return
        match call.name:
            case "open" | "openat":
                self.open(self.name(call.arguments[0]), call.number)
            case "write" | "pwrite":
                assert call.result == len(call.arguments[1])
                file = self.file(call.arguments[0])
                at = call.number if call.name == "pwrite" else file.position
                file.pending.append(Write(at, call.arguments[1]))
                if call.name == "write":
                    file.position += call.result
            case "ftruncate":
                self.file(call.arguments[0]).pending.append(Write(call.number, None))
            case "rename" | "renameat" | "renameat2":
                source, target = map(self.name, call.arguments)
                self.change(Naming(source, (target, self.names[source])))
            case "unlink" | "unlinkat":
                self.change(Naming(self.name(call.arguments[0]), None))
            case "fsync" | "fdatasync":
                self.sync(call.arguments[0])
            case _:
                raise AssertionError(f"what does {call.name} do to a disk?")

    def name(self, path: bytes) -> str:
        parent, name = os.path.split(path)
        assert parent == self.root, f"{path!r}: only what lies in the directory may be changed"
        return os.fsdecode(name)

    def file(self, path: bytes) -> File:
        node = self.names[self.name(path)]
        assert isinstance(node, int)
        return self.files[node]

    def open(self, name: str, flags: int) -> None:
        if name not in self.names:
            self.change(Naming(None, (name, self.add(b""))))
        elif flags & os.O_TRUNC:
            self.file(self.root + b"/" + os.fsencode(name)).pending.append(Write(0, None))

    def change(self, naming: Naming) -> None:
        self.pending.append(naming)
        _rename(self.names, naming)

    def sync(self, path: bytes) -> None:
        if path == self.root:
            self.durable, self.pending = dict(self.names), []
            return
        file = self.file(path)
        for write in file.pending:
            file.durable = write.on(file.durable)
        file.pending = []

    def states(self) -> Iterator[State]:
        """What can be there after a loss of power now."""
        unsynced = [(n, w) for n, file in enumerate(self.files) for w in file.pending]
        halves = [(n, w.half()) for n, w in unsynced]
        for kept in _subsets(self.pending):
            names = dict(self.durable)
            for naming in kept:
                _rename(names, naming)
            for writes in itertools.chain(_subsets(unsynced), [halves]):
                yield tuple(sorted(self.content(names, writes)))

    def content(
        self, names: dict[str, Node], writes: Sequence[tuple[int, Write]]
    ) -> Iterator[tuple[str, bytes | str]]:
        for name, node in names.items():
            if isinstance(node, str):
                yield name, node
                continue
            content = self.files[node].durable
            for number, write in writes:
                content = write.on(content) if number == node else content
            yield name, content


def _rename(names: dict[str, Node], naming: Naming) -> None:
    """A file is found under one name only: the last that it was given."""
    if naming.gets is not None:
        name, node = naming.gets
        for other in [n for n, found in names.items() if found == node]:
            del names[other]
        names[name] = node
    elif naming.loses is not None:
        names.pop(naming.loses, None)


def _subsets(items: Sequence[Any]) -> Iterator[list[Any]]:
    if len(items) <= ALL_SUBSETS:
        for size in range(len(items) + 1):
            yield from map(list, itertools.combinations(items, size))
        return
    yield list(items)
    yield []
    for item in items:
        yield [item]


def after_power_loss(base: Path, root: Path, calls: Iterable[Call]) -> Iterator[tuple[int, State]]:
    """Every state that a loss of power can leave, once, with the number of calls before it.

    Args:
        base: the store as it was before.
        root: where the calls found it.
    """
    disk = Disk(base, root)
    seen: set[State] = set()
    for number, call in enumerate([None, *calls]):
        if call is not None:
            disk.take(call)
        for state in disk.states():
            if state not in seen:
                seen.add(state)
                yield number, state


def put(state: State, base: Path, target: Path) -> None:
    """Make a directory of a state."""
    target.mkdir()
    for name, found in state:
        if isinstance(found, str):
            shutil.copytree(base / found, target / name)
        else:
            (target / name).write_bytes(found)


def lose_power(case: Case, number: int, state: State) -> Stop:
    """Put a state that a loss of power left on a disk, then look, and go on."""
    store = case.scratch / f"lost-{number}"
    put(state, case.base, store)
    return examine(case.action, store, number, audited=False)
