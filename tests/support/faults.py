"""The fault lab: stores as accidents leave them, made by real writers and from seeds.

``Lab.make(fault, seed, target)`` makes one store. What no clock decides (everything in
:data:`REPEATABLE`) comes out the same for the same seed, but for segment ids and the order of
parallel insertion; kills and races at a random moment have the same parameters each time, and
their store has to be kept.

Each record's vector follows from its id and metadata (:func:`truth`), so that a vector that is
not its own shows, whatever happened. This file is also the writer, in an environment with
chromadb: ``python faults.py write JOB``.
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracle import Engine

Json = dict[str, Any]
#: Makes a store at a path from a seed, and says what it did.
Fault = Callable[["Lab", random.Random, Path], str]
WEIGHTS = {"add": 6, "upsert": 3, "update": 2, "touch": 1, "delete": 3}
INDEX_FILES = ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin")
ID_MAP = "index_metadata.pickle"
FILES = (*INDEX_FILES, ID_MAP)
DATABASE = "chroma.sqlite3"
PAGE = 4096


def truth(record: str, metadata: Mapping[str, Any]) -> list[list[float]]:
    """The vector of a record that :class:`Writer` wrote with this metadata, and those before."""
    versions = range(metadata.get("v", -1), -1, -1)
    return [a_vector(record, version, metadata["d"]) for version in versions]


def a_vector(record: str, version: int, dimension: int) -> list[float]:
    source = random.Random(f"{record}/{version}")
    return [source.gauss(0.0, 1.0) for _ in range(dimension)]


# --- The writer, in the other process ------------------------------------------------------------


class Writer:
    """Plays seeded operations on a store and says after each that it is done."""

    def __init__(self, job: Json) -> None:
        import chromadb
        from chromadb.config import Settings

        self.job = job
        self.store = Path(job["store"])
        self.random = random.Random(f"{job['seed']}/{job['writer']}")
        settings = Settings(anonymized_telemetry=False)
        self.client = chromadb.PersistentClient(path=str(self.store), settings=settings)
        self.collections = [self.collection(c) for c in job["collections"]]
        self.live: list[set[str]] = [set() for _ in self.collections]
        self.versions: list[dict[str, int]] = [{} for _ in self.collections]
        self.flushed: dict[Path, bytes] = {}
        for n, collection in enumerate(self.collections):
            found = collection.get(include=["metadatas"])
            for record, metadata in zip(found["ids"], found["metadatas"], strict=True):
                if record.startswith(job["writer"]):
                    self.live[n].add(record)
                    self.versions[n][record] = metadata["v"]

    def collection(self, settings: Json) -> Any:
        for _ in range(20):
            with suppress(Exception):  # another writer may be making it
                return self.client.get_or_create_collection(
                    settings["name"], metadata=settings["metadata"]
                )
            time.sleep(0.05)
        raise RuntimeError("no collection")

    def run(self) -> None:
        print("ready", flush=True)
        for number in range(self.job["operations"]):
            self.keep("before")
            if arm := self.job.get("arm"):
                self.arm(number, *arm)
            try:
                self.play()
            except Exception as error:
                print(f"failed {number}: {str(error)[:200]}", flush=True)
                if not self.job.get("stubborn"):
                    raise
            else:
                print(f"done {number}", flush=True)
            if self.keep("after"):
                return
            if self.job.get("pause"):
                time.sleep(self.random.uniform(0.0, self.job["pause"]))

    def arm(self, number: int, operation: int, call: int, mode: int, names: str) -> None:
        if number == operation:
            ctypes.CDLL(None).fault_arm(
                ctypes.c_long(call), mode, str(self.store).encode(), names.encode()
            )

    def play(self) -> None:
        weights: dict[str, int] = self.job["weights"]
        operation = self.random.choices(list(weights), list(weights.values()))[0]
        n = self.random.randrange(len(self.collections))
        size = self.random.randint(*self.job["batch"])
        live = sorted(self.live[n])
        if operation in ("update", "touch", "delete"):
            size = min(size, len(live) // 2 if operation == "delete" else len(live))
            chosen = self.random.sample(live, size)
        else:
            known = self.random.sample(live, min(len(live), size // 3))
            chosen = known if operation == "upsert" else []
            chosen += self.fresh(n, size - len(chosen))
        if chosen:
            self.write(operation, n, chosen)

    def fresh(self, n: int, size: int) -> list[str]:
        """Ids that are not there: some were once."""
        gone = sorted(self.versions[n].keys() - self.live[n])
        again = self.random.sample(gone, min(len(gone), size // 4))
        first = len(self.versions[n])
        return (
            again
            + [f"{self.job['writer']}{i:05d}" for i in range(first, first + size)][
                : size - len(again)
            ]
        )

    def write(self, operation: str, n: int, ids: list[str]) -> None:
        collection, versions = self.collections[n], self.versions[n]
        if operation == "delete":
            self.live[n] -= set(ids)
            collection.delete(ids=ids)
            return
        if operation == "touch":
            marks = [{"m": self.random.randrange(99)} for _ in ids]
            collection.update(ids=ids, metadatas=marks)
            return
        dimension = self.job["collections"][n]["dimension"]
        self.live[n] |= set(ids)
        for record in ids:
            versions[record] = versions.get(record, -1) + 1
        metadatas = [{"v": versions[record], "d": dimension} for record in ids]
        vectors = [a_vector(record, versions[record], dimension) for record in ids]
        getattr(collection, operation)(ids=ids, embeddings=vectors, metadatas=metadatas)

    def keep(self, moment: str) -> bool:
        """Keep the stores before and after the n-th operation that flushed."""
        if "snapshots" not in self.job:
            return False
        target = Path(self.job["snapshots"], moment)
        headers = {p: p.read_bytes() for p in self.store.glob(f"*/{ID_MAP}")}
        if moment == "after":
            if headers == self.flushed:
                return False
            self.job["flushes"] -= 1
            if self.job["flushes"] > 0:
                return False
        else:
            self.flushed = headers
            shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self.store, target)
        return moment == "after"


# --- The lab -------------------------------------------------------------------------------------

#: Stands between a process and the disk: at the n-th write below ROOT to a file whose path has
#: NAMES in it (or "!NAMES": has not) it dies before (0) or in the middle of it (1), or finds
#: the disk full for that call (2), for that and the next 30 (3), or from then on (4).
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
static atomic_long left; static int mode; static char root[4096], names[64];
void fault_arm(long n, int m, const char *r, const char *s) {
  mode = m; strncpy(root, r, 4095); strncpy(names, s, 63); atomic_store(&left, n);
}
static int concerned(int fd) {
  char link[64], path[4096]; ssize_t n;
  if (!root[0]) return 0;
  snprintf(link, 64, "/proc/self/fd/%d", fd);
  n = readlink(link, path, 4095);
  if (n < 0) return 0;
  path[n] = 0;
  if (strncmp(path, root, strlen(root))) return 0;
  return names[0] == '!' ? !strstr(path, names + 1) : !!strstr(path, names);
}
static int strikes(int fd) {
  if (!concerned(fd)) return 0;
  long n = atomic_fetch_sub(&left, 1);
  if (mode < 2) return n == 1;
  return n <= 1 && (mode == 4 || n > (mode == 3 ? -30 : 0));
}
static int struck(void) {
  if (mode < 2) { kill(getpid(), SIGKILL); pause(); }
  errno = ENOSPC; return -1;
}
#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
ssize_t write(int fd, const void *b, size_t n) {
  REAL(write);
  if (strikes(fd)) { if (mode == 1) real(fd, b, n / 2); return struck(); }
  return real(fd, b, n);
}
ssize_t writev(int fd, const struct iovec *v, int n) {
  REAL(writev); return strikes(fd) ? struck() : real(fd, v, n);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t at) {
  REAL(pwrite64);
  if (strikes(fd)) { if (mode == 1) real(fd, b, n / 2, at); return struck(); }
  return real(fd, b, n, at);
}
size_t fwrite(const void *b, size_t size, size_t n, FILE *f) {
  REAL(fwrite);
  if (strikes(fileno(f))) {
    if (mode == 1) { real(b, 1, size * n / 2, f); fflush(f); }
    return struck() ? 0 : 0;
  }
  return real(b, size, n, f);
}
int ftruncate64(int fd, off64_t n) {
  REAL(ftruncate64); return strikes(fd) ? struck() : real(fd, n);
}
"""


def build_shim(folder: Path) -> Path | None:
    """Compile :data:`SHIM`; None where there is no C compiler or no Linux."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        return None
    library, source = folder / "shim.so", folder / "shim.c"
    source.write_text(SHIM)
    flags = ["-shared", "-fPIC", "-O1", "-o"]
    subprocess.run(["cc", *flags, str(library), str(source), "-ldl"], check=True)
    return library


@dataclass
class Lab:
    """Makes stores.

    Args:
        engine: where writers run; preloaded with :func:`build_shim` for the faults of the disk.
        scratch: a directory for what is needed on the way.
        has_shim: whether it is.
        cache: where the sound stores are kept that are then damaged; labs may share it.
    """

    engine: Engine
    scratch: Path
    has_shim: bool = False
    cache: Path | None = None
    runs: int = 0

    def make(self, fault: str, seed: int, target: Path) -> str:
        """Make a store at ``target``; returns what exactly was done to it."""
        return FAULTS[fault](self, random.Random(f"{fault}/{seed}"), target)

    # -- writers

    def start(self, job: Json) -> tuple[int, Path]:
        self.runs += 1
        output = self.scratch / f"writer-{os.getpid()}-{self.runs}.out"
        output.write_text("")
        arguments = ["write", json.dumps(job)]
        return self.engine.start(Path(__file__), arguments, output), output

    def write(self, job: Json) -> str:
        """Let a writer play its operations to the end, or to its death."""
        pid, output = self.start(job)
        death = self.engine.wait(pid, 15)
        lines = output.read_text().splitlines()
        output.unlink()
        return f"ended with {death.code}: {lines[-1] if lines else ''}"

    def wait_until_ready(self, output: Path, operations: int = 0) -> None:
        until = time.monotonic() + 20
        while time.monotonic() < until and output.read_text().count("\n") <= operations:
            time.sleep(0.002)

    def kill(self, pid: int, output: Path) -> str:
        self.engine.kill(pid)
        self.engine.wait(pid)
        done = output.read_text().count("\n") - 1
        output.unlink()
        return f"killed after {done} operations"

    def base(self, number: int) -> Path:
        """One of :data:`BASES` sound stores, made once."""
        store = (self.cache or self.scratch) / f"base-{number}"
        if not store.exists():
            source = random.Random(f"base/{number}")
            fresh = self.scratch / f"base-{number}-{os.getpid()}"
            job = a_job(source, fresh, operations=source.randint(8, 25))
            self.write(with_flushes(source, job) if number % 4 else job)
            with suppress(OSError):  # another lab made it meanwhile
                fresh.rename(store)
        return store


BASES = 16


def a_job(source: random.Random, store: Path, **changes: Any) -> Json:
    """Parameters of a writer."""
    count = source.choice((1, 1, 2, 3))
    sync = source.choice((20, 50, 100, 200, 1000))
    collections = []
    for n in range(count):
        metadata: Json = {
            "hnsw:space": source.choice(("l2", "l2", "cosine", "ip")),
            "hnsw:M": source.choice((16, 16, 8)),
        }
        if sync != 1000:
            metadata |= {"hnsw:sync_threshold": sync, "hnsw:batch_size": max(2, sync // 2)}
        dimension = source.choice((4, 8, 16))
        collections.append({"name": f"docs-{n}", "metadata": metadata, "dimension": dimension})
    weights = dict(WEIGHTS)
    for name in ("upsert", "update", "touch", "delete"):
        weights[name] *= source.choice((0, 1, 1, 3))
    job: Json = {
        "store": str(store),
        "seed": source.randrange(1 << 30),
        "writer": "a",
        "collections": collections,
        "operations": 100_000,
        "batch": source.choice(([1, 4], [5, 40], [30, 120], [1, 100])),
        "weights": weights,
    }
    return job | changes


def with_flushes(source: random.Random, job: Json) -> Json:
    """The same job with thresholds that are passed often."""
    for collection in job["collections"]:
        sync = source.choice((20, 40, 80))
        collection["metadata"] |= {"hnsw:sync_threshold": sync, "hnsw:batch_size": sync // 2}
    job["batch"] = source.choice(([5, 40], [30, 90]))
    return job


# -- natural faults


def killed(lab: Lab, source: random.Random, target: Path) -> str:
    """kill -9 at a random moment, up to three times."""
    job = a_job(source, target)
    notes = []
    for n in range(source.choice((1, 1, 2, 3))):
        pid, output = lab.start(job | {"seed": job["seed"] + n})
        lab.wait_until_ready(output)
        time.sleep(source.uniform(0.0, 0.6))
        notes.append(lab.kill(pid, output))
    return "; ".join(notes)


def killed_in_flush(lab: Lab, source: random.Random, target: Path) -> str:
    """kill -9 a few milliseconds after a header was written."""
    job = with_flushes(source, a_job(source, target))
    wanted, delay = source.randint(1, 6), min(0.02, source.expovariate(400))
    pid, output = lab.start(job)
    lab.wait_until_ready(output)
    seen: set[tuple[str, int]] = set()
    until = time.monotonic() + 5
    while len(seen) < wanted and time.monotonic() < until:
        for path in target.glob("*/header.bin"):
            seen.add((str(path), path.stat().st_mtime_ns))
    time.sleep(delay)
    return lab.kill(pid, output)


def write_cut(lab: Lab, source: random.Random, target: Path) -> str:
    """The process dies at the n-th write to any file of a segment folder, or to any file."""
    assert lab.has_shim, "needs the shim"
    job = with_flushes(source, a_job(source, target, operations=source.randint(6, 20)))
    names = source.choice(("!.sqlite3", "!.sqlite3", "!.sqlite3", ID_MAP, DATABASE, ""))
    calls = 3 if names == ID_MAP else int(10 ** source.uniform(0.0, 2.7))
    job["arm"] = [source.randint(0, 3), calls, source.choice((0, 1)), names]
    return f"{job['arm']} {lab.write(job)}"


def disk_full(lab: Lab, source: random.Random, target: Path) -> str:
    """Writes fail with ENOSPC for a while, or from some point on; the writer does not give up."""
    assert lab.has_shim, "needs the shim"
    job = with_flushes(source, a_job(source, target, operations=source.randint(6, 20)))
    names = source.choice(("!.sqlite3", "!.sqlite3", ID_MAP, DATABASE, ""))
    calls = 1 if names == ID_MAP else int(10 ** source.uniform(0.0, 2.7))
    job["arm"] = [source.randint(0, 3), calls, source.choice((2, 3, 4)), names]
    job["stubborn"] = source.random() < 0.7
    return f"{job['arm']} {lab.write(job)}"


def writers(count: int) -> Fault:
    def several(lab: Lab, source: random.Random, target: Path) -> str:
        """Processes with a client of their own on one directory."""
        job = a_job(source, target, operations=source.randint(4, 14), stubborn=True)
        job["collections"] = job["collections"][:2]
        if source.random() < 0.7:
            job = with_flushes(source, job)
        job["pause"] = source.choice((0.0, 0.01, 0.1))
        lab.write(job | {"operations": 2})
        running = [lab.start(job | {"writer": name}) for name in "abc"[:count]]
        deaths = []
        for pid, output in running:
            deaths.append(str(lab.engine.wait(pid, 20).code))
            output.unlink()
        return "ended with " + ", ".join(deaths)

    return several


def torn_copy(lab: Lab, source: random.Random, target: Path) -> str:
    """A copy taken file by file while a writer runs."""
    store = lab.scratch / f"living-{os.getpid()}"
    shutil.rmtree(store, ignore_errors=True)
    job = a_job(source, store, pause=source.choice((0.0, 0.02)))
    if source.random() < 0.8:
        job = with_flushes(source, job)
    pid, output = lab.start(job)
    lab.wait_until_ready(output, source.randint(1, 15))
    folders = sorted(path for path in store.iterdir() if path.is_dir())
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    order = source.choice(("sqlite first", "sqlite last", "any"))
    files = [store / DATABASE, *files] if order == "sqlite first" else [*files, store / DATABASE]
    if order == "any":
        source.shuffle(files)
    pause = source.choice((0.0, 0.02, 0.08))
    target.mkdir()
    for file in files:
        copy = target / file.relative_to(store)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(file, copy)
        time.sleep(source.uniform(0.0, pause))
    return f"{order}, {lab.kill(pid, output)}"


def skewed(lab: Lab, source: random.Random, target: Path) -> str:
    """Database and folders (or one of the folders) from two moments."""
    job = a_job(source, target, operations=source.randint(2, 14))
    if source.random() < 0.8:
        job = with_flushes(source, job)
    lab.write(job)
    earlier = lab.scratch / f"earlier-{os.getpid()}"
    shutil.rmtree(earlier, ignore_errors=True)
    shutil.copytree(target, earlier)
    lab.write(job | {"seed": job["seed"] + 1, "operations": source.randint(1, 8)})
    folders = sorted(path.name for path in earlier.iterdir() if path.is_dir())
    what = source.choice(("database", "folders", *folders))
    if what == "database":
        shutil.copyfile(earlier / DATABASE, target / DATABASE)
    for name in folders if what == "folders" else [what]:
        if name != "database":
            shutil.rmtree(target / name, ignore_errors=True)
            shutil.copytree(earlier / name, target / name)
    return f"older: {what}"


def power_loss(unit: int) -> Fault:
    def lost(lab: Lab, source: random.Random, target: Path) -> str:
        """The files of a flush, each (or each page) as before, as after, or never written."""
        store = lab.scratch / f"flushing-{os.getpid()}"
        snapshots = lab.scratch / f"snapshots-{os.getpid()}"
        for path in (store, snapshots):
            shutil.rmtree(path, ignore_errors=True)
        job = with_flushes(source, a_job(source, store, operations=60))
        job |= {"snapshots": str(snapshots), "flushes": source.randint(1, 5)}
        lab.write(job)
        before, after = snapshots / "before", snapshots / "after"
        if not after.exists():
            after = before
        shutil.copytree(after, target)
        notes = []
        if source.random() < 0.4:
            shutil.copyfile(before / DATABASE, target / DATABASE)
            notes.append("database before")
        for folder in sorted(path for path in after.iterdir() if path.is_dir()):
            for name in FILES:
                old, new = before / folder.name / name, folder / name
                if not new.exists() or (old.exists() and old.read_bytes() == new.read_bytes()):
                    continue
                data = _mixed(source, old, new, unit)
                (target / folder.name / name).unlink()
                if data is not None:
                    (target / folder.name / name).write_bytes(data)
                    state = "after" if data == new.read_bytes() else "before or mixed"
                    notes.append(f"{folder.name[:4]}/{name} {state}")
        return ", ".join(notes)

    return lost


def _mixed(source: random.Random, old: Path, new: Path, unit: int) -> bytes | None:
    """Old and new contents in units of so many bytes; None for a file that is not there yet."""
    after = new.read_bytes()
    before = old.read_bytes() if old.exists() else b""
    if not unit:
        if source.random() < 0.5:
            return after
        return before if old.exists() else source.choice((None, b"", bytes(len(after))))
    size = source.choice((len(before), len(after), len(after)))
    result = bytearray(size)
    for at in range(0, size, unit):
        page = source.choice((before, after, after))[at : min(at + unit, size)]
        result[at : at + len(page)] = page
    return bytes(result)


# -- faults of bytes

HEADER = struct.Struct("<iQQQQQQiIQQQdQ")
HEADER_FIELDS = {
    "persistence_version": (0, 4), "offset_level0": (4, 8), "max_elements": (12, 8),
    "cur_element_count": (20, 8), "size_data_per_element": (28, 8), "label_offset": (36, 8),
    "offset_data": (44, 8), "maxlevel": (52, 4), "enterpoint_node": (56, 4), "max_m": (60, 8),
    "max_m0": (68, 8), "m": (76, 8), "mult": (84, 8), "ef_construction": (92, 8),
}  # fmt: skip


@dataclass
class Victim:
    """A copy of a sound store, one segment of which is to be damaged; another one lies beside."""

    source: random.Random
    store: Path
    folder: Path
    collection: str
    other: Path

    def path(self, name: str) -> Path:
        return self.folder / name

    def header(self) -> tuple[Any, ...]:
        return HEADER.unpack(self.path("header.bin").read_bytes()[: HEADER.size])

    @property
    def count(self) -> int:
        count: int = self.header()[3]
        return count

    @contextmanager
    def edit(self, name: str) -> Iterator[bytearray]:
        data = bytearray(self.path(name).read_bytes())
        yield data
        self.path(name).write_bytes(data)

    @contextmanager
    def database(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.store / DATABASE)) as database:
            yield database
            database.commit()

    def change(self, data: bytearray, at: int, size: int) -> str:
        """Change one field: a bit of it, or to a value that may look right."""
        old = bytes(data[at : at + size])
        limit, count = (1 << 8 * size) - 1, self.count
        for _ in range(100):
            if self.source.random() < 0.5:
                bit = self.source.randrange(8 * size)
                data[at + bit // 8] ^= 1 << bit % 8
            else:
                number = int.from_bytes(old, "little")
                known = (0, 1, limit, limit >> 1, count - 1, count, number + 1, number - 1)
                some = self.source.randrange(max(1, count))
                value = self.source.choice((*known, some, 2 * number)) & limit
                data[at : at + size] = value.to_bytes(size, "little")
            if bytes(data[at : at + size]) != old:
                break
        return f"{old.hex()} to {bytes(data[at : at + size]).hex()}"


def flushed_segments(store: Path) -> list[tuple[Path, str]]:
    """Folder and collection of each vector segment that has an id map, as sqlite orders them."""
    query = (
        "SELECT s.id, c.name FROM segments s JOIN collections c ON c.id = s.collection"
        " WHERE s.scope = 'VECTOR' ORDER BY s.rowid"
    )
    with closing(sqlite3.connect(store / DATABASE)) as database:
        rows = database.execute(query).fetchall()
    return [(store / s, name) for s, name in rows if (store / s / ID_MAP).exists()]


def on_bytes(harm: Callable[[Victim], str]) -> Fault:
    """A fault that edits one segment that was flushed, or what sqlite says of it."""

    def make(lab: Lab, source: random.Random, target: Path) -> str:
        numbers = [n for n in range(BASES) if flushed_segments(lab.base(n))]
        number = source.choice(numbers)
        base = lab.base(number)
        folder, collection = source.choice(flushed_segments(base))
        others = [f for n in numbers for f, _ in flushed_segments(lab.base(n)) if f != folder]
        shutil.copytree(base, target)
        victim = Victim(source, target, target / folder.name, collection, source.choice(others))
        return f"base {number} {collection}: {harm(victim)}"

    return make


def cut(v: Victim) -> str:
    name = v.source.choice(FILES)
    with v.edit(name) as data:
        size = len(data)
        near = min(size, v.source.choice((1, 2, 4, 8, 64, 512)))
        keep = v.source.choice((0, size - near, v.source.randrange(size + 1), size // 2))
        del data[keep:]
    return f"{name} cut from {size} to {keep}"


def zero(v: Victim) -> str:
    name = v.source.choice(FILES)
    with v.edit(name) as data:
        size = len(data)
        first = v.source.choice((0, v.source.randrange(size + 1), size // 2))
        length = min(size - first, v.source.choice((8, 64, 512, PAGE, size)))
        data[first : first + length] = bytes(length)
    return f"{name} zeroed from {first} for {length} of {size}"


def garbage(v: Victim) -> str:
    name = v.source.choice(FILES)
    with v.edit(name) as data:
        size = len(data)
        first = v.source.choice((0, v.source.randrange(size + 1), size // 2))
        length = min(size - first, v.source.choice((1, 8, 64, 512, PAGE)))
        data[first : first + length] = v.source.randbytes(length)
    return f"{name} garbage from {first} for {length} of {size}"


def extend(v: Victim) -> str:
    name = v.source.choice(FILES)
    with v.edit(name) as data:
        length = v.source.choice((1, 4, 8, 100, PAGE, 1 << 20))
        data += v.source.choice((bytes(length), v.source.randbytes(length), b"\xff" * length))
    return f"{name} extended by {length}"


def swap(v: Victim) -> str:
    """Some files, or all, of another segment."""
    names = v.source.choice((FILES, INDEX_FILES, *[(name,) for name in FILES]))
    for name in names:
        shutil.copyfile(v.other / name, v.path(name))
    return f"{', '.join(names)} of another segment"


def remove(v: Victim) -> str:
    name = v.source.choice((*FILES, ""))
    if name:
        v.path(name).unlink()
    else:
        shutil.rmtree(v.folder)
    return f"removed {name or 'folder'}"


def in_header(v: Victim) -> str:
    name, (at, size) = v.source.choice(list(HEADER_FIELDS.items()))
    with v.edit("header.bin") as data:
        return f"{name} {v.change(data, at, size)}"


def in_level0(v: Victim) -> str:
    header = v.header()
    count, stride, label_at, vector_at = header[3:7]
    element = v.source.randrange(count)
    kind = v.source.choice(("degree", "flags", "unused", "neighbour", "label", "vector"))
    with v.edit("data_level0.bin") as data:
        row = element * stride
        (degree,) = struct.unpack_from("<H", data, row)
        at, size = {
            "degree": (0, 2),
            "flags": (2, 1),
            "unused": (3, 1),
            "neighbour": (4 + 4 * v.source.randrange(max(1, degree)), 4),
            "label": (label_at, 8),
            "vector": (vector_at + 4 * v.source.randrange((label_at - vector_at) // 4), 4),
        }[kind]
        return f"{kind} of element {element} of {count} {v.change(data, row + at, size)}"


def in_links(v: Victim) -> str:
    header = v.header()
    count, width = header[3], 4 + 4 * header[9]
    with v.edit("link_lists.bin") as data:
        places: list[tuple[str, int, int]] = []
        at = 0
        for _ in range(count):
            (size,) = struct.unpack_from("<I", data, at)
            places.append(("length" if size else "no length", at, 4))
            for start in range(at + 4, at + 4 + size, width):
                (degree,) = struct.unpack_from("<H", data, start)
                places += [("degree", start, 2), ("flags", start + 2, 2)]
                places += [("neighbour", start + 4 + 4 * n, 4) for n in range(degree)]
            at += 4 + size
        kind = v.source.choice(sorted({name for name, _, _ in places}))
        _, at, size = v.source.choice([place for place in places if place[0] == kind])
        return f"{kind} at {at} {v.change(data, at, size)}"


def in_id_map(v: Victim) -> str:
    """The map changed as a map, or a byte anywhere in it."""
    with v.edit(ID_MAP) as data:
        if v.source.random() < 0.4:
            at = v.source.randrange(len(data))
            return f"byte {at} of {len(data)} {v.change(data, at, 1)}"
        state = pickle.loads(bytes(data))  # noqa: S301 - a real Chroma just wrote it
        note = _change_map(v.source, state)
        data[:] = b"\x80\x03" + pickled(state) + b"."
        return note


def _change_map(source: random.Random, state: Json) -> str:
    forward, backward = state["id_to_label"], state["label_to_id"]
    one, two = source.sample(list(forward), 2)
    first, second = forward[one], forward[two]
    total = state["total_elements_added"]
    highest = max(backward)
    match source.randrange(11):
        case 0:
            values = (0, 1, total - 1, total + 1, total + 100, highest, 1 << 31, (1 << 32) + 5)
            state["total_elements_added"] = source.choice(values)
            return f"total {total} to {state['total_elements_added']}"
        case 1:
            del forward[one], backward[first]
            return f"without {one}"
        case 2:
            del forward[one]
            return f"id_to_label without {one}"
        case 3:
            del backward[first]
            return f"label_to_id without {first}"
        case 4:
            forward[one], forward[two] = second, first
            backward[first], backward[second] = two, one
            return f"{one} and {two} exchanged"
        case 5:
            backward[first], backward[second] = two, one
            return f"{one} and {two} exchanged in label_to_id"
        case 6:
            forward["stranger"] = first
            backward[first] = "stranger"
            del forward[one]
            return f"{one} renamed"
        case 7:
            label = source.choice((0, total + 1, total + 50, 1 << 31, 1 << 33))
            del backward[first]
            forward[one], backward[label] = label, one
            return f"label of {one} {first} to {label}"
        case 8:
            forward["stranger"], backward[total + 1] = total + 1, "stranger"
            state["total_elements_added"] = total + 1
            return "stranger added"
        case 9:
            name = source.choice(("dimensionality", "max_seq_id", "id_to_seq_id"))
            known: tuple[Any, ...] = (
                None,
                0,
                1,
                state["dimensionality"],
                384,
                1 << 40,
                {},
                {one: 3},
            )
            state[name] = source.choice(known)
            return f"{name} is {state[name]}"
        case _:
            names = list(state)
            del state[source.choice(names)]
            return f"only {', '.join(state)}"


def pickled(value: Any) -> bytes:
    """As serde_pickle writes it: protocol 3, no memo."""
    match value:
        case None:
            return b"N"
        case int() if -(1 << 31) <= value < 1 << 31:
            return b"J" + struct.pack("<i", value)
        case int():
            return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)
        case str():
            return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
        case dict() if not value:
            return b"}"
        case dict():
            return b"}(" + b"".join(pickled(k) + pickled(v) for k, v in value.items()) + b"u"
    raise TypeError(type(value))


def in_watermarks(v: Victim) -> str:
    scope = v.source.choice(("VECTOR", "METADATA"))
    with v.database() as database:
        (highest,) = database.execute(
            "SELECT max(seq_id) FROM"
            " (SELECT seq_id FROM embeddings_queue UNION SELECT seq_id FROM max_seq_id)"
        ).fetchone()
        (segment,) = database.execute(
            "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection"
            " WHERE c.name = ? AND s.scope = ?",
            [v.collection, scope],
        ).fetchone()
        (old,) = database.execute(
            "SELECT seq_id FROM max_seq_id WHERE segment_id = ?", [segment]
        ).fetchone()
        values: list[Any] = [0, old - 1, old + 1, old - 30, old + 30, highest, highest + 1]
        values += [highest + 1000, -1, 1 << 53, (1 << 63) - 1, old // 2, 2.5, str(old)]
        values += [old.to_bytes(8, "big"), b"\x11\x11000123", "row deleted"]
        value = v.source.choice(values)
        if value == "row deleted":
            database.execute("DELETE FROM max_seq_id WHERE segment_id = ?", [segment])
        else:
            statement = "UPDATE max_seq_id SET seq_id = ? WHERE segment_id = ?"
            database.execute(statement, [value, segment])
    return f"{scope} {old} to {value!r}"


def in_records(v: Victim) -> str:
    with v.database() as database:
        (segment,) = database.execute(
            "SELECT s.id FROM segments s JOIN collections c ON c.id = s.collection"
            " WHERE c.name = ? AND s.scope = 'METADATA'",
            [v.collection],
        ).fetchone()
        query = "SELECT id, embedding_id FROM embeddings WHERE segment_id = ? ORDER BY id"
        row, record = v.source.choice(database.execute(query, [segment]).fetchall())
        if v.source.random() < 0.6:
            database.execute("DELETE FROM embeddings WHERE id = ?", [row])
            return f"{record} deleted"
        database.execute("UPDATE embeddings SET embedding_id = 'stranger' WHERE id = ?", [row])
        return f"{record} renamed"


WAL_CHANGES = (
    "DELETE FROM embeddings_queue WHERE seq_id = ?",
    "DELETE FROM embeddings_queue WHERE seq_id >= ?",
    "DELETE FROM embeddings_queue WHERE seq_id <= ?",
    "UPDATE embeddings_queue SET operation = 3, vector = NULL WHERE seq_id = ?",
    "UPDATE embeddings_queue SET operation = 0 WHERE seq_id = ?",
    "UPDATE embeddings_queue SET operation = 1 WHERE seq_id = ?",
    "UPDATE embeddings_queue SET operation = 2 WHERE seq_id = ?",
    "UPDATE embeddings_queue SET operation = 7 WHERE seq_id = ?",
    "UPDATE embeddings_queue SET id = 'stranger' WHERE seq_id = ?",
    "UPDATE embeddings_queue SET vector = NULL WHERE seq_id = ?",
    "UPDATE embeddings_queue SET vector = substr(vector, 1, 5) WHERE seq_id = ?",
    "UPDATE embeddings_queue SET vector = zeroblob(4) WHERE seq_id = ?",
    "UPDATE embeddings_queue SET vector = zeroblob(length(vector)) WHERE seq_id = ?",
    "UPDATE embeddings_queue SET vector = 'text' WHERE seq_id = ?",
    "UPDATE embeddings_queue SET encoding = 'INT32' WHERE seq_id = ?",
    "UPDATE embeddings_queue SET encoding = NULL WHERE seq_id = ?",
    "UPDATE embeddings_queue SET encoding = 'float32' WHERE seq_id = ?",
    "UPDATE embeddings_queue SET metadata = '{' WHERE seq_id = ?",
    "UPDATE embeddings_queue SET topic = topic || 'x' WHERE seq_id = ?",
)


def in_wal(v: Victim) -> str:
    with v.database() as database:
        (name,) = database.execute(
            "SELECT id FROM collections WHERE name = ?", [v.collection]
        ).fetchone()
        query = "SELECT seq_id FROM embeddings_queue WHERE topic LIKE ? ORDER BY seq_id"
        rows = [row for (row,) in database.execute(query, [f"%/{name}"])]
        if not rows:
            return "the WAL is empty"
        statement, row = v.source.choice(WAL_CHANGES), v.source.choice(rows)
        number = database.execute(statement, [row]).rowcount
        return f"{statement.removeprefix('UPDATE embeddings_queue ')} {row}: {number} rows"


def in_catalogue(v: Victim) -> str:
    statement = v.source.choice(
        (
            "UPDATE collections SET dimension = dimension + 1 WHERE name = ?",
            "UPDATE collections SET dimension = NULL WHERE name = ?",
            "UPDATE collections SET dimension = 0 WHERE name = ?",
            "DELETE FROM segments WHERE scope = 'VECTOR'"
            " AND collection = (SELECT id FROM collections WHERE name = ?)",
            "DELETE FROM segments WHERE scope = 'METADATA'"
            " AND collection = (SELECT id FROM collections WHERE name = ?)",
            "UPDATE collections SET schema_str = NULL WHERE name = ?",
            "UPDATE collections SET config_json_str = '{}' WHERE name = ?",
        )
    )
    with v.database() as database:
        database.execute(statement, [v.collection])
    return statement


def in_database(v: Victim) -> str:
    """Bytes of chroma.sqlite3, wherever they are."""
    path = v.store / DATABASE
    data = bytearray(path.read_bytes())
    size = len(data)
    first = v.source.choice((v.source.randrange(size), v.source.randrange(size // PAGE) * PAGE))
    length = v.source.choice((1, 16, PAGE, size))
    match v.source.choice(("garbage", "zeroed", "cut")):
        case "garbage":
            length = min(length, 64, size - first)
            data[first : first + length] = v.source.randbytes(length)
            note = f"garbage from {first} for {length} of {size}"
        case "zeroed":
            length = min(length, size - first)
            data[first : first + length] = bytes(length)
            note = f"zeroed from {first} for {length} of {size}"
        case _:
            del data[first:]
            note = f"cut from {size} to {first}"
    path.write_bytes(data)
    return note


def sound(lab: Lab, source: random.Random, target: Path) -> str:
    """Nothing happened; the writer was opened again once or twice."""
    job = a_job(source, target, operations=source.randint(1, 15))
    notes = [lab.write(job)]
    for n in range(source.choice((0, 1, 2))):
        notes.append(lab.write(job | {"seed": job["seed"] + n + 1}))
    return "; ".join(notes)


FAULTS: Mapping[str, Fault] = {
    "sound": sound,
    "killed": killed,
    "killed-in-flush": killed_in_flush,
    "write-cut": write_cut,
    "disk-full": disk_full,
    "two-writers": writers(2),
    "three-writers": writers(3),
    "torn-copy": torn_copy,
    "skewed": skewed,
    "power-loss-files": power_loss(0),
    "power-loss-pages": power_loss(PAGE),
    "cut": on_bytes(cut),
    "zero": on_bytes(zero),
    "garbage": on_bytes(garbage),
    "extend": on_bytes(extend),
    "swap": on_bytes(swap),
    "remove": on_bytes(remove),
    "in-header": on_bytes(in_header),
    "in-level0": on_bytes(in_level0),
    "in-links": on_bytes(in_links),
    "in-id-map": on_bytes(in_id_map),
    "in-watermarks": on_bytes(in_watermarks),
    "in-records": on_bytes(in_records),
    "in-wal": on_bytes(in_wal),
    "in-catalogue": on_bytes(in_catalogue),
    "in-database": on_bytes(in_database),
}
#: What no clock decides.
REPEATABLE = FAULTS.keys() - {
    "killed", "killed-in-flush", "two-writers", "three-writers", "torn-copy",
}  # fmt: skip


def main() -> None:
    match sys.argv[1:]:
        case ["write", job]:
            Writer(json.loads(job)).run()
        case _:
            sys.exit("usage: faults.py write JOB")


if __name__ == "__main__":
    main()
