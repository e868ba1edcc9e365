"""The judge: what does the real engine do with a store?

An :class:`Oracle` copies a store, lets a real chromadb of another process read and write the copy,
opens it again in further fresh processes, and says what went wrong. Whatever the engine does
(die, hang, write terabytes), the oracle and the store survive it.

This file is also what runs on the other side: ``python oracle.py engine`` imports chromadb once
and forks for every job, so that a fresh process costs milliseconds; only the standard library and
chromadb may be used there.
"""

from __future__ import annotations

import base64
import json
import math
import os
import pickletools
import random
import resource
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

Vector = Sequence[float]
#: What a record's vector must be, given its id and metadata, then what it was before; empty where
#: that is not known.
Truth = Callable[[str, Mapping[str, Any]], Sequence[Vector]]
Json = dict[str, Any]

TIME_LIMIT = 30.0
#: A header can make the engine ask for any amount of memory, a torn link list for any file size.
MEMORY_LIMIT, FILE_LIMIT = 12 << 30, 1 << 30
TOLERANCE = 1e-4
#: Of this share of the records a search may miss some in a sound index: HNSW is approximate.
RECALL = 0.05
SAMPLE = 16
#: Records that are added in each run of an application.
LIVING = 30
#: Before it, get() gives the vectors of several ids in an order of their own.
IN_ORDER = (0, 4, 4)
#: Before it, an id is lost that one batch deletes and adds again.
ADDS_AGAIN = (0, 5, 5)
#: All that a search says in a collection that was never written to, in the first releases of 1.0.
NOTHING = "Error creating hnsw segment reader"
#: What 0.6 says where a search arrives at fewer elements than were asked for.
TOO_FEW = "contigious 2D array"


class Kind(StrEnum):
    """What the engine did wrong."""

    CRASH = "crash"
    HANG = "hang"
    ERROR = "error"
    MISCOUNT = "miscount"
    MISSING = "missing"  # records without a vector
    PHANTOM = "phantom"  # hits that are no records
    WRONG = "wrong vector"
    STALE = "stale vector"  # its own, from before an update
    LOST = "lost write"  # accepted, then not there
    UNFOUND = "unfound"  # has its vector, but a search for everything passes it by


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that went wrong.

    Attributes:
        step: what was being done, as "phase/step".
        count: how many records are concerned; 0 where that is not the point.
        grave: False for a few records that only a search passes by.
    """

    kind: Kind
    step: str
    message: str
    count: int = 0
    ids: tuple[str, ...] = ()
    grave: bool = True

    def __str__(self) -> str:
        sample = f" {', '.join(self.ids[:5])}" if self.ids else ""
        number = f" x{self.count}" if self.count else ""
        return f"{self.kind}{number} at {self.step}: {self.message}{sample}"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the engine did with one collection."""

    collection: str
    problems: tuple[Problem, ...]
    records: int
    seconds: float

    @property
    def broken(self) -> bool:
        return any(problem.grave for problem in self.problems)

    def __str__(self) -> str:
        text = "; ".join(map(str, self.problems)) or "clean"
        return f"{self.collection} ({self.records} records): {text}"


# --- A process that has chromadb imported --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Death:
    """How a process ended: its exit code, or minus the signal."""

    code: int
    hung: bool

    @property
    def signal(self) -> str | None:
        return signal.Signals(-self.code).name if self.code < 0 and not self.hung else None


class EngineLost(Exception):
    """The interpreter itself was ended from outside: nothing was judged."""


class Engine:
    """Runs scripts in fresh processes of an interpreter that has chromadb."""

    def __init__(
        self, python: str | os.PathLike[str] = sys.executable, preload: Path | None = None
    ) -> None:
        quiet = {"ANONYMIZED_TELEMETRY": "False", "OPENBLAS_NUM_THREADS": "1"}
        shim = {"LD_PRELOAD": str(preload)} if preload else {}
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._process = subprocess.Popen(
            [os.fspath(python), __file__, "engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | quiet | shim,
        )

    def start(self, script: Path, arguments: Sequence[str], output: Path) -> int:
        """Run ``script`` in a new process and session; returns its process id."""
        job = {"script": str(script), "arguments": list(arguments), "output": str(output)}
        pid = int(self._ask(job)["pid"])
        self._running.add(pid)
        return pid

    def wait(self, pid: int, time_limit: float = TIME_LIMIT) -> Death:
        """Wait for a process that was started here; kill it when its time is over."""
        until = time.monotonic() + time_limit
        pause = 0.002
        hung = False
        while (code := self._ask({"reap": pid})["code"]) is None:
            if time.monotonic() > until and not hung:
                hung = True
                self.kill(pid)
            time.sleep(pause)
            pause = min(pause * 1.3, 0.05)
        self._running.discard(pid)
        return Death(code, hung)

    def run(
        self, script: Path, arguments: Sequence[str], output: Path, time_limit: float = TIME_LIMIT
    ) -> Death:
        """Start and wait."""
        return self.wait(self.start(script, arguments, output), time_limit)

    @staticmethod
    def kill(pid: int) -> None:
        """Kill a process that was started here, with all it started."""
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _ask(self, question: Json) -> Json:
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            with suppress(BrokenPipeError):
                print(json.dumps(question), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        if not line:
            self._running.clear()
            raise EngineLost(f"the interpreter ended with {self._process.wait()}")
        answer: Json = json.loads(line)
        return answer

    def close(self) -> None:
        """End the interpreter, and whatever still runs in it."""
        for pid in list(self._running):
            self.kill(pid)
            self.wait(pid)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def serve() -> None:
    """The other side of :class:`Engine`: fork for each job that arrives on stdin."""
    import chromadb  # noqa: F401 - so that every child has it

    for line in sys.stdin:
        job = json.loads(line)
        if "reap" in job:
            pid, status = os.waitpid(job["reap"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            pid = os.fork()
            if not pid:
                _become(job)
            # Only once it is a group of its own may it be killed as one.
            with suppress(PermissionError, ProcessLookupError):
                os.setpgid(pid, pid)
            answer = {"pid": pid}
        print(json.dumps(answer), flush=True)


def _become(job: Json) -> None:
    """In the child: run the job's script, and never return."""
    code = 1
    try:
        with suppress(PermissionError):
            os.setpgid(0, 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
        output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.argv = [job["script"], *job["arguments"]]
        runpy.run_path(job["script"], run_name="__main__")
        code = 0
    except BaseException:  # noqa: BLE001 - Rust panics are BaseException
        traceback.print_exc()
    finally:
        # Chroma never flushes at close; its threads would only delay the end.
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)


# --- What is done to a collection, in the other process ------------------------------------------


class Log:
    """Writes down each step before and after, so that a death tells where it happened."""

    def __init__(self, path: str) -> None:
        self.file = open(path, "w")  # noqa: SIM115, PTH123 - open until the process dies

    def write(self, **event: Any) -> None:
        print(json.dumps(event), file=self.file, flush=True)

    @contextmanager
    def step(self, name: str) -> Iterator[Json]:
        """A step; what is put into the yielded dict is written down. Errors end only the step."""
        self.write(begin=name)
        found: Json = {}
        try:
            yield found
        except BaseException as error:  # noqa: BLE001 - Rust panics are BaseException
            message = (str(error).splitlines() or [""])[0][:300]
            self.write(end=name, error=f"{type(error).__name__}: {message}")
        else:
            self.write(end=name, found=found)


def release() -> tuple[int, ...]:
    """The numbers of the chromadb that is asked."""
    import chromadb

    return tuple(int(part) for part in chromadb.__version__.split(".")[:3])


def packed(vectors: Sequence[Vector]) -> list[str]:
    return [base64.b64encode(array("f", vector).tobytes()).decode() for vector in vectors]


def unpacked(text: str) -> tuple[float, ...]:
    return tuple(array("f", base64.b64decode(text)))


class Examination:
    """One phase: everything is read, then something is written."""

    def __init__(self, job: Json) -> None:
        self.job = job
        self.log = Log(job["log"])
        self.random = random.Random(job["phase"] + str(job["seed"]))
        self.collection: Any = None
        self.space = ""
        self.ids: list[str] = []
        self.vectors: dict[str, Vector] = {}

    def run(self) -> None:
        with self.log.step("open") as found:
            self.collection = self.open()
            self.space = found["space"] = self.read_space()
        if self.collection is None:
            return
        self.read()
        getattr(self, self.job["phase"].partition("-")[0])()

    def open(self) -> Any:
        import chromadb
        from chromadb.config import Settings

        where = {name: self.job[name] for name in ("tenant", "database") if self.job[name]}
        client = chromadb.PersistentClient(
            path=self.job["store"], settings=Settings(anonymized_telemetry=False), **where
        )
        return client.get_collection(self.job["collection"])

    def read(self) -> None:
        with self.log.step("count") as found:
            found["count"] = self.collection.count()
        with self.log.step("get") as found:
            answer = self.collection.get(include=["metadatas"])
            self.ids = list(answer["ids"])
            found.update(ids=self.ids, metadatas=answer["metadatas"])
        self.read_vectors()
        self.search()

    def read_vectors(self) -> None:
        done = False
        if release() < IN_ORDER:
            with self.log.step("get embeddings") as found:
                each = [self.collection.get(ids=[r], include=["embeddings"]) for r in self.ids]
                self.vectors = {one["ids"][0]: one["embeddings"][0] for one in each}
                found.update(ids=self.ids, vectors=packed(list(self.vectors.values())))
            return
        with self.log.step("get embeddings") as found:
            answer = self.collection.get(include=["embeddings"])
            self.vectors = dict(zip(answer["ids"], answer["embeddings"], strict=True))
            found.update(ids=answer["ids"], vectors=packed(answer["embeddings"]))
            done = True
        if done:
            return
        with self.log.step("get each") as found:
            failed = []
            for record in self.ids:
                try:
                    answer = self.collection.get(ids=[record], include=["embeddings"])
                    self.vectors[record] = answer["embeddings"][0]
                except Exception:  # noqa: BLE001 - which record it is matters, not why
                    failed.append(record)
            found["failed"] = failed

    def search(self) -> None:
        with self.log.step("query all") as found:
            wanted, vector = len(self.ids) + 50, self.vector()
            answer = self.collection.query(query_embeddings=[vector], n_results=wanted)
            found.update(vector=vector, hits=answer["ids"][0], distances=answer["distances"][0])
        sample = self.some(sorted(self.vectors), SAMPLE)
        if sample:
            with self.log.step("query own") as found:
                answer = self.collection.query(
                    query_embeddings=[list(self.vectors[record]) for record in sample],
                    n_results=5 if self.space != "ip" else len(self.ids) + 50,
                )
                found.update(ids=sample, hits=answer["ids"])

    def read_space(self) -> str:
        """Under "ip" a record need not be among the nearest of its own vector."""
        said = (self.collection.metadata or {}).get("hnsw:space")
        with suppress(Exception):
            # The first releases of 1.0 have l2 here whatever the metadata say, which count.
            said = said or self.collection.configuration["hnsw"]["space"]
        return str(said or "l2")

    def some(self, ids: Sequence[str], count: int) -> list[str]:
        return self.random.sample(ids, min(count, len(ids)))

    def vector(self) -> list[float]:
        return [self.random.gauss(0.0, 1.0) for _ in range(self.job["dimension"])]

    def write(self, operation: str, ids: Sequence[str], name: str | None = None) -> None:
        """Let the engine do it, and write down what must be there afterwards."""
        if not ids:
            return
        vectors = [self.vector() for _ in ids]
        with self.log.step(name or operation) as found:
            payload: Json = {"ids": list(ids)}
            if operation != "delete":
                payload["embeddings"] = vectors
            getattr(self.collection, operation)(**payload)
            found.update(operation=operation, ids=list(ids))
            if operation != "delete":
                found["vectors"] = packed(vectors)

    def first(self) -> None:
        """One operation of each kind; and ids that only the index knows can be given again."""
        self.write("add", ["oracle-added"])
        unknown = [record for record in self.job["indexed"] if record not in self.ids]
        if release() >= ADDS_AGAIN:
            self.write("add", unknown[:5], "add again")
        chosen = self.some(sorted(self.ids), 3)
        for operation, record in zip(("upsert", "update", "delete"), chosen, strict=False):
            self.write(operation, [record])
        self.count_again()

    def second(self) -> None:
        """Every record gets a new vector."""
        self.write("upsert", self.ids, "upsert all")
        self.count_again()

    def third(self) -> None:
        """Most records go, and as many as a flush needs come."""
        self.write("delete", self.some(sorted(self.ids), len(self.ids) * 3 // 4), "delete most")
        self.write("add", [f"oracle-{n}" for n in range(self.job["batch"])], "add many")
        self.count_again()

    def fourth(self) -> None:
        """Nothing is left."""
        self.write("delete", self.ids, "delete all")
        self.count_again()

    def living(self) -> None:
        """As an application goes on: a few records of each kind."""
        self.write("add", [f"{self.job['phase']}-{n}" for n in range(LIVING)])
        chosen = self.some(sorted(self.ids), 3)
        for operation, record in zip(("upsert", "update", "delete"), chosen, strict=False):
            self.write(operation, [record])
        self.count_again()

    def count_again(self) -> None:
        with self.log.step("count again") as found:
            found["count"] = self.collection.count()


# --- The verdict ---------------------------------------------------------------------------------

PHASES = ("first", "second", "third", "fourth")


def living_on(runs: int) -> tuple[str, ...]:
    """Phases of an application that runs so often."""
    return tuple(f"living-{number}" for number in range(1, runs + 1))


@dataclass(frozen=True, slots=True)
class Subject:
    """A collection as sqlite names it; before 0.4.15 there are no tenants and databases."""

    tenant: str
    database: str
    name: str
    segment: str
    dimension: int


def subjects(store: Path) -> list[Subject]:
    """The collections of a store, read from a copy of its database."""
    query = (
        "SELECT {}, c.name, coalesce(s.id, ''), coalesce(c.dimension, 4) FROM collections c {}"
        " LEFT JOIN segments s ON s.collection = c.id AND s.scope = 'VECTOR' ORDER BY c.rowid"
    )
    with copied_database(store) as database:
        if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'databases'").fetchall():
            databases = "JOIN databases d ON d.id = c.database_id"
            query = query.format("d.tenant_id, d.name", databases)
        else:
            query = query.format("'', ''", "")
        return [Subject(*row) for row in database.execute(query)]


@contextmanager
def copied_database(store: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a copy: opening a database can roll it back or move its -wal into it."""
    with TemporaryDirectory() as scratch:
        for path in store.glob("chroma.sqlite3*"):
            shutil.copyfile(path, Path(scratch, path.name))
        with closing(sqlite3.connect(Path(scratch, "chroma.sqlite3"))) as database:
            yield database


#: What else stands before a number in an id map.
FIELDS = ("dimensionality", "total_elements_added", "max_seq_id")


def _indexed(folder: Path) -> list[str]:
    """The ids of an id map, as far as it tells: texts before a number. It is never unpickled."""
    found: dict[str, None] = {}
    text: str | None = None
    with suppress(OSError, ValueError), (folder / "index_metadata.pickle").open("rb") as file:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "MEMOIZE":
                continue
            if text is not None and text not in FIELDS and isinstance(argument, int):
                found[text] = None
            text = argument if isinstance(argument, str) else None
    return list(found)


@dataclass(slots=True)
class _Case:
    """What is known of a collection, phase after phase."""

    truth: Truth | None
    problems: list[Problem] = field(default_factory=list)
    records: int = 0
    space: str = ""
    ids: set[str] | None = None
    vectors: dict[str, Vector] = field(default_factory=dict)
    metadatas: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def report(self, kind: Kind, step: str, message: str, ids: Sequence[str] = ()) -> None:
        few = len(ids) <= max(2, RECALL * len(self.ids or ()))
        # Under "ip" sound graphs leave many records unreachable.
        grave = kind is not Kind.UNFOUND or not (few or self.space == "ip")
        self.problems.append(Problem(kind, step, message, len(ids), tuple(sorted(ids)), grave))

    def take(self, phase: str, step: str, found: Json) -> None:
        """Compare what a step found with what must be, and remember it."""
        at = f"{phase}/{step}"
        match step:
            case "open":
                self.space = found["space"]
            case "count" | "count again":
                if self.ids is not None and found["count"] != len(self.ids):
                    text = f"{found['count']}, expected {len(self.ids)}"
                    self.report(Kind.MISCOUNT, at, text)
            case "get":
                self.take_ids(at, found)
            case "get embeddings":
                vectors = map(unpacked, found["vectors"])
                self.take_vectors(at, dict(zip(found["ids"], vectors, strict=True)))
            case "get each" if found["failed"]:
                self.report(Kind.MISSING, at, "have no vector:", found["failed"])
            case "query all":
                self.take_hits(at, found["hits"])
                self.take_distances(at, found)
            case "query own":
                pairs = zip(found["ids"], found["hits"], strict=True)
                unfound = [record for record, hits in pairs if record not in hits]
                if unfound:
                    self.report(Kind.UNFOUND, at, "not among the nearest of itself:", unfound)
            case _ if "operation" in found:
                self.wrote(found)

    def take_ids(self, at: str, found: Json) -> None:
        ids = set(found["ids"])
        if self.ids is None:
            self.records = len(ids)
            pairs = zip(found["ids"], found["metadatas"], strict=True)
            self.metadatas = {record: metadata or {} for record, metadata in pairs}
        elif ids != self.ids:
            if gone := self.ids - ids:
                self.report(Kind.LOST, at, "records are gone:", list(gone))
            if back := ids - self.ids:
                self.report(Kind.LOST, at, "deleted records are back:", list(back))
        self.ids = ids

    def take_vectors(self, at: str, vectors: dict[str, tuple[float, ...]]) -> None:
        if absent := [r for r in self.ids or () if r not in vectors]:
            self.report(Kind.MISSING, at, "have no vector:", absent)
        wrong: list[str] = []
        stale: list[str] = []
        for record, vector in vectors.items():
            versions = self.versions(record)
            matches = [_close(vector, version) for version in versions]
            if versions and not matches[0]:
                (stale if any(matches) else wrong).append(record)
        if wrong:
            self.report(Kind.WRONG, at, "have another vector:", wrong)
        if stale:
            self.report(Kind.STALE, at, "have an earlier vector:", stale)
        self.vectors = dict(vectors)
        self.metadatas = {}

    def versions(self, record: str) -> Sequence[Vector]:
        if record in self.vectors:
            return [self.vectors[record]]
        if self.truth is None or record not in self.metadatas:
            return []
        return self.truth(record, self.metadatas[record])

    def take_hits(self, at: str, hits: Sequence[str]) -> None:
        ids = self.ids or set()
        if phantom := set(hits) - ids:
            self.report(Kind.PHANTOM, at, "no such records:", list(phantom))
        if len(set(hits)) < len(hits):
            twice = {record for record in hits if hits.count(record) > 1}
            self.report(Kind.PHANTOM, at, "found more than once:", list(twice))
        if unfound := ids - set(hits):
            self.report(Kind.UNFOUND, at, "never found:", list(unfound))

    def take_distances(self, at: str, found: Json) -> None:
        """A hit must be as far away as the vector that get() gives for it."""
        pairs = zip(found["hits"], found["distances"], strict=True)
        known = ((r, d, self.vectors[r]) for r, d in pairs if r in self.vectors)
        wrong = [r for r, d, v in known if not _same(d, _distance(self.space, found["vector"], v))]
        if wrong:
            self.report(Kind.WRONG, at, "are found at another vector's distance:", wrong)

    def wrote(self, found: Json) -> None:
        ids: set[str] = self.ids if self.ids is not None else set()
        if found["operation"] == "delete":
            self.ids = ids - set(found["ids"])
            for record in found["ids"]:
                self.vectors.pop(record, None)
        else:
            self.ids = ids | set(found["ids"])
            self.vectors.update(zip(found["ids"], map(unpacked, found["vectors"]), strict=True))


def _close(found: Vector, expected: Vector) -> bool:
    if len(found) != len(expected):
        return False
    scale = max(1.0, max(map(abs, expected), default=1.0))
    return all(abs(a - b) <= TOLERANCE * scale for a, b in zip(found, expected, strict=True))


def _distance(space: str, one: Vector, two: Vector) -> float:
    dot = sum(a * b for a, b in zip(one, two, strict=True))
    match space:
        case "cosine":
            norms = math.hypot(*one) * math.hypot(*two)
            return 1.0 - dot / norms if norms else math.nan
        case "ip":
            return 1.0 - dot
        case _:
            return sum((a - b) ** 2 for a, b in zip(one, two, strict=True))


def _same(found: float, expected: float) -> bool:
    """Equal as far as float32 goes; what is not a number proves nothing."""
    if not (math.isfinite(found) and math.isfinite(expected)):
        return True
    return abs(found - expected) <= 1e-3 * max(1.0, abs(expected))


class Oracle:
    """Asks the engine of one interpreter.

    Args:
        python: an interpreter that has chromadb.
        time_limit: seconds for each phase.
        scratch: where copies are made; the system's temporary directory by default.
    """

    def __init__(
        self,
        python: str | os.PathLike[str] = sys.executable,
        time_limit: float = TIME_LIMIT,
        scratch: Path | None = None,
    ) -> None:
        self.engine = Engine(python)
        self.time_limit = time_limit
        self.scratch = scratch

    def judge_store(self, store: Path, truth: Truth | None = None) -> list[Judgement]:
        """Judge every collection of a store, each on a copy of its own.

        Raises:
            sqlite3.Error: not even the list of collections can be read.
        """
        return [self.judge(store, subject, truth) for subject in subjects(store)]

    def judge(
        self,
        store: Path,
        collection: str | Subject,
        truth: Truth | None = None,
        seed: int = 0,
        phases: Sequence[str] = PHASES,
    ) -> Judgement:
        """Let the engine read and write one collection, on a copy.

        Args:
            collection: its name, in the default tenant and database, or all of it.
            truth: what the vectors must be; without it, only what changes by itself is wrong.
            seed: chooses which records are written.
            phases: "first" reads and writes one record each way; the others, each in a fresh
                process, read all that again, and rewrite, delete and add many; those of
                :func:`living_on` add some, and change one each way.
        """
        started = time.monotonic()
        if isinstance(collection, str):
            collection = next(s for s in subjects(store) if s.name == collection)
        case = _Case(truth)
        with TemporaryDirectory(prefix="oracle-", dir=self.scratch) as scratch:
            copy = Path(scratch, "store")
            shutil.copytree(store, copy, symlinks=True)
            for phase in phases:
                self._examine(Path(scratch), phase, collection, seed, case)
                if any(problem.grave for problem in case.problems):
                    break
        seconds = time.monotonic() - started
        return Judgement(collection.name, tuple(case.problems), case.records, seconds)

    def _examine(self, scratch: Path, phase: str, subject: Subject, seed: int, case: _Case) -> None:
        log, output = scratch / f"{phase}.log", scratch / f"{phase}.out"
        store = scratch / "store"
        job = {
            "store": str(store),
            "tenant": subject.tenant,
            "database": subject.database,
            "collection": subject.name,
            "dimension": subject.dimension,
            "phase": phase,
            "seed": seed,
            "batch": 120,
            "indexed": _indexed(store / subject.segment) if phase == "first" else [],
            "log": str(log),
        }
        log.write_text("")
        death = self.engine.run(
            Path(__file__), ["examine", json.dumps(job)], output, self.time_limit
        )
        at = "start"
        for line in log.read_text().splitlines():
            with suppress(json.JSONDecodeError):  # the last line of a process that died
                event = json.loads(line)
                if "begin" in event:
                    at = event["begin"]
                    continue
                if event.get("error", "").endswith(NOTHING) and case.ids == set():
                    continue
                if "error" in event:
                    kind = Kind.UNFOUND if TOO_FEW in event["error"] else Kind.ERROR
                    case.report(kind, f"{phase}/{event['end']}", event["error"])
                else:
                    case.take(phase, event["end"], event["found"])
                at = f"after {at}"
        if death.hung:
            text = f"no answer for {self.time_limit:g} s"
            case.report(Kind.HANG, f"{phase}/{at}", text)
        elif death.signal:
            case.report(Kind.CRASH, f"{phase}/{at}", death.signal)
        elif death.code:
            last = (output.read_text(errors="replace").splitlines() or [""])[-1][:300]
            case.report(Kind.ERROR, f"{phase}/{at}", f"exit code {death.code}: {last}")

    def close(self) -> None:
        self.engine.close()


def main() -> None:
    """``engine``: serve jobs. ``examine JOB``: one of them. Else: judge the stores named."""
    match sys.argv[1:]:
        case ["engine"]:
            serve()
        case ["examine", job]:
            Examination(json.loads(job)).run()
        case [python, *stores]:
            with closing(Oracle(python)) as oracle:
                for store in stores:
                    for judgement in oracle.judge_store(Path(store)):
                        print(f"{store}: {judgement} [{judgement.seconds:.1f} s]")
        case _:
            sys.exit("usage: oracle.py PYTHON STORE...")


if __name__ == "__main__":
    main()
