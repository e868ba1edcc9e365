"""What do the tools that people use today say of a store?

``python benchmarks/rivals.py STORE --mempalace-python PATH --chops-python PATH``

Each tool runs under an interpreter of its own and only ever sees a copy. What counts as "damaged":

* mempalace: before MemPalace opens a store it asks hnsw_capacity_status about a collection (here:
  about each), then renames the folders that quarantine_invalid_hnsw_metadata and
  quarantine_stale_hnsw distrust. Damaged is a status with "diverged", or a renamed folder; the
  status "unknown" is not, since the tool goes on. Both go by file times, which mean nothing in a
  store that was just made or unpacked, so it is asked twice, with times that are set. "fresh":
  everything was written just now; "later": only the database was, the index files hours before, as
  in any store that is opened again long after its last flush. Not asked: its quick_check of the
  database, a lighter form of sqlite's test.
* chops: ``chops db info`` of chromadb-ops loads each index and lets the chromadb beside it count;
  it draws no conclusion. Damaged is an exit code other than 0, whether by a signal or an exception,
  or an "HNSW Orphan Labels" that is not empty (its manual: "must always be empty"; 0.1.5 always
  prints 0). Not counted: orphan directories (its manual: "can be safely deleted"), and numbers that
  a reader could compare. Its extra "core" brings chromadb 1.0.16, which cannot open what 1.5.9
  wrote: install 1.5.9 beside it. It unpickles id maps: show it only stores that you trust.
* sqlite: ``PRAGMA integrity_check`` of the database. Damaged is an error, or anything but "ok".

There is no verdict where a tool takes too long, goes beyond the limits below or fails on its own
account (any failure of mempalace or sqlite that they do not report themselves), or where a store
cannot safely be copied.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import logging
import os
import re
import resource
import select
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, redirect_stdout, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

TIME_LIMIT, START_LIMIT, GRACE = 30, 120, 10
#: Damaged files make a tool ask for any amount of memory, and write files of any size. What counts
#: is the memory in use: who has no limit gets terabytes of addresses for nothing, and no error.
MEMORY_LIMIT, FILE_LIMIT, COPY_LIMIT = 6 << 30, 1 << 30, 2 << 30
#: Seconds between the last flush and "later"; MemPalace's patience ends after 300.
LATER = 6 * 3600
TEXT_LIMIT = 400
#: Ends that tell nothing, by exit code.
LIMITS = {
    -signal.SIGALRM: f"no answer within {TIME_LIMIT} s",
    -signal.SIGKILL: f"killed; it may use {MEMORY_LIMIT >> 30} GiB",
    -signal.SIGXFSZ: f"wrote a file of more than {FILE_LIMIT >> 30} GiB",
}

Answer = tuple[bool | None, str]
Question = Callable[[Path], Answer]


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a tool says of a store.

    Attributes:
        damaged: None when there is no verdict.
        text: what it said, in one line.
    """

    damaged: bool | None
    text: str


class Rival(Protocol):
    """A tool; one that is skipped has a reason, and no verdict on anything."""

    name: str
    version: str | None
    skipped: str | None

    def judge(self, store: Path) -> Opinion: ...


# --- In the tool's interpreter: only the standard library and the tool ---------------------------


def mempalace() -> tuple[str, Question]:
    chroma = importlib.import_module("mempalace.backends.chroma")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage().partition("; renamed to ")[0])

    def ask(store: Path) -> Answer:
        logging.getLogger().addHandler(Listener(logging.WARNING))
        states = [chroma.hnsw_capacity_status(str(store), name) for name in collections(store)]
        before = {path.name for path in store.iterdir()}
        chroma.ChromaBackend._prepare_palace_for_open(str(store))
        after = {path.name for path in store.iterdir()}
        renamed = [n for n in sorted(after - before) if ".drift-" in n or ".corrupt-" in n]
        found = [state["message"] for state in states if state["diverged"]]
        if found or renamed:
            return True, "; ".join(found + (heard or renamed))
        rest = {f"{s['status']}: {s['message']}": None for s in states if s["status"] != "ok"}
        return False, "; ".join([*rest, *heard]) or "ok"

    heard: list[str] = []
    return version("mempalace"), ask


def collections(store: Path) -> list[str]:
    """Names that one collection has; if they cannot be read, the one that MemPalace expects."""
    query = "SELECT name FROM collections GROUP BY name HAVING count(*) = 1 ORDER BY rowid"
    with suppress(sqlite3.Error), closing(connect(store)) as database:
        return [name for (name,) in database.execute(query)]
    return ["mempalace_drawers"]


def connect(store: Path) -> sqlite3.Connection:
    """Open a store's database; never make one."""
    return sqlite3.connect(f"{(store / 'chroma.sqlite3').as_uri()}?mode=rw", uri=True)


def chops() -> tuple[str, Question]:
    app = importlib.import_module("chroma_ops.main").app

    def ask(store: Path) -> Answer:
        output = io.StringIO()
        try:
            with redirect_stdout(output):
                app(["db", "info", str(store)], standalone_mode=False)
        except BaseException as error:  # noqa: BLE001 - Rust panics are BaseException
            return True, f"{type(error).__name__}: {error}"
        labels = re.findall(r"HNSW Orphan Labels\s*│\s*(.*?)\s*│", output.getvalue())
        if odd := [value for value in labels if value not in ("0", "set()")]:
            return True, f"HNSW Orphan Labels {', '.join(odd)}"
        folders = re.findall(r"Orphan HNSW Directories\s*│\s*(.*?)\s*│", output.getvalue())
        return False, "ok" if folders == ["[]"] else "ok; there are orphan directories"

    return f"{version('chromadb-ops')} with chromadb {version('chromadb')}", ask


def sqlite() -> tuple[str, Question]:
    def ask(store: Path) -> Answer:
        try:
            with closing(connect(store)) as database:
                database.text_factory = lambda raw: raw.decode(errors="replace")
                rows = [str(row) for (row,) in database.execute("PRAGMA integrity_check")]
        except sqlite3.Error as error:
            return True, str(error)
        return rows != ["ok"], "; ".join(rows)

    return sqlite3.sqlite_version, ask


TOOLS = {"mempalace": mempalace, "chops": chops, "sqlite": sqlite}


def serve(tool: str) -> None:
    """Import the tool once; then answer each line of stdin from a process forked for it."""
    channel = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - what the tool prints is no answer
        os.dup2(nowhere.fileno(), 1)
    try:
        name, ask = TOOLS[tool]()
    except BaseException as error:  # noqa: BLE001 - whatever it was, the tool is not there
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=channel, flush=True)
        return
    print(json.dumps({"version": name}), file=channel, flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if not pid:
            answer_one(ask, **json.loads(line))
        print(json.dumps({"code": wait(pid)}), file=channel, flush=True)


def wait(pid: int) -> int:
    """The exit code, or minus the signal, of a process that is killed when it grows too large."""
    used = Path(f"/proc/{pid}/statm")
    while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
        with suppress(OSError):
            if int(used.read_text().split()[1]) * resource.getpagesize() > MEMORY_LIMIT:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(ended[1])


def answer_one(ask: Question, store: str, answer: str) -> None:
    """In the forked process: write the answer into a file, and never return."""
    code = 1
    try:
        signal.alarm(TIME_LIMIT)  # ends the process, whatever it is doing
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # no error that the tool could report
        try:
            found = ask(Path(store))
        except BaseException as error:  # noqa: BLE001 - the tool failed, not the store
            found = None, f"its own failure: {type(error).__name__}: {error}"
        Path(answer).write_text(json.dumps(found))
        code = 0
    finally:
        os._exit(code)


# --- On this side --------------------------------------------------------------------------------


class Tool:
    """A tool in a process that is started again when it is lost.

    Args:
        tool: one of TOOLS.
        python: the interpreter that has it.
        age: how many seconds older than the database the index files look.
        fatal: whether the tool's death says that the store is damaged.
    """

    def __init__(
        self, name: str, tool: str, python: str | None, *, age: int = 0, fatal: bool = False
    ) -> None:
        self.name = name
        self.version: str | None = None
        self.skipped: str | None = None
        self._tool, self._age, self._fatal = tool, age, fatal
        self._process: subprocess.Popen[str] | None = None
        self._home = TemporaryDirectory(prefix="rival-home-", ignore_cleanup_errors=True)
        if python is None:
            self.skipped = "no interpreter was named for it"
            return
        self._python = python
        try:
            hello = self._start()
        except OSError as error:
            hello = {"error": str(error)}
        self.version = hello.get("version")
        if self.version is None:
            self.skipped = one_line(f"cannot be used: {hello.get('error', 'no answer')}")

    def judge(self, store: Path) -> Opinion:
        if self.skipped is not None:
            return Opinion(None, self.skipped)
        with TemporaryDirectory(prefix="rival-", ignore_cleanup_errors=True) as scratch:
            copy, answer = Path(scratch, "store"), Path(scratch, "answer")
            try:
                copy_store(store, copy, self._age)
            except (OSError, ValueError) as error:
                return Opinion(None, one_line(f"not copied: {error}"))
            damaged, text = self._ask(copy, answer)
            return Opinion(
                damaged, one_line(text.replace(f"{copy}/", "").replace(str(copy), "STORE"))
            )

    def _ask(self, store: Path, answer: Path) -> Answer:
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            job = {"store": str(store), "answer": str(answer)}
            print(json.dumps(job), file=self._process.stdin, flush=True)
        code = self._hear(TIME_LIMIT + GRACE).get("code")
        if code == 0:
            damaged, text = json.loads(answer.read_text())
            return damaged, text
        if code is None:
            return None, "its process was lost"
        if code in LIMITS:
            return None, LIMITS[code]
        death = f"died of {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return (True if self._fatal else None), death

    def _start(self) -> dict[str, Any]:
        quiet = {"ANONYMIZED_TELEMETRY": "False", "OPENBLAS_NUM_THREADS": "1", "NO_COLOR": "1"}
        apart = {"HOME": self._home.name, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        foreign = ("PYTHON", "MEMPAL", "CHROMA", "XDG_", "FORCE_COLOR", "TTY_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
        self._process = subprocess.Popen(
            [self._python, str(Path(__file__).resolve()), "--serve", self._tool],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self._home.name,
            env=kept | quiet | apart | {"COLUMNS": "4000", "TERM": "dumb"},  # no table is wrapped
            text=True,
            start_new_session=True,
        )
        return self._hear(START_LIMIT)

    def _hear(self, time_limit: float) -> dict[str, Any]:
        """The next line of the process; if there is none, nothing, and the process is ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], time_limit)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.close()
            return {}
        found: dict[str, Any] = json.loads(line)
        return found

    def close(self) -> None:
        """End the process, and what it forked; it is started again when it is needed."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError), process:
            pass


def copy_store(store: Path, copy: Path, age: int) -> None:
    """Copy a store, with file times that do not depend on when it was made.

    Raises:
        ValueError: it is too large, has something special in it, or links to what is outside.
    """
    size = 0
    for path in store.rglob("*"):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            size += status.st_size
        elif not (stat.S_ISDIR(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            raise ValueError(f"{path.name} is a special file")
    if size > COPY_LIMIT:
        raise ValueError(f"it has {size} bytes")
    shutil.copytree(store, copy, symlinks=True)
    now = time.time()
    for path in copy.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(copy.resolve()):
            raise ValueError(f"{path.name} links to what is outside")
        then = now if path.parent == copy else now - age
        os.utime(path, (then, then), follow_symlinks=False)


def one_line(text: str) -> str:
    return " ".join(text.split())[:TEXT_LIMIT]


def rivals(mempalace_python: str | None, chops_python: str | None) -> list[Rival]:
    """The tools, each with its process running; they end with this process."""
    return [
        Tool("mempalace (fresh)", "mempalace", mempalace_python),
        Tool("mempalace (later)", "mempalace", mempalace_python, age=LATER),
        Tool("chops", "chops", chops_python, fatal=True),
        Tool("sqlite", "sqlite", sys.executable),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("stores", type=Path, nargs="*", metavar="STORE")
    parser.add_argument("--mempalace-python", help="an interpreter with mempalace")
    parser.add_argument("--chops-python", help="one with chromadb-ops, and chromadb 1.5.9")
    parser.add_argument("--serve", choices=TOOLS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return 0
    tools = rivals(options.mempalace_python, options.chops_python)
    words = {True: "damaged", False: "no alarm", None: "no verdict"}
    for store in options.stores:
        for tool in tools:
            opinion = tool.judge(store)
            label = f"{tool.name} {tool.version or '-'}"
            print(f"{store}: {label}: {words[opinion.damaged]}: {opinion.text}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
