"""Calls in a process of their own, for when this process has a database open already.

POSIX drops every lock that a process has on a file as soon as the process closes any descriptor of
that file (fcntl(2)), and an sqlite that is linked in twice does not know of the other's
descriptors (sqlite.org/howtocorrupt.html, section 2.2). Reading chroma.sqlite3 beside a client in
the same process would take the client's locks away; so would two audits in two threads.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.spawn import get_executable
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from hnswcheck.errors import HnswcheckError, StoreUnreadable

T = TypeVar("T")

DESCRIPTORS = Path("/dev/fd")
CHILD = """
import pickle, sys
sys.path = pickle.load(sys.stdin.buffer)
from hnswcheck.apart import answer
answer()
"""

FileKey = tuple[int, int]

PATIENCE_SECONDS = 5.0


class Progress(Protocol):
    """Told how far a reading is; both numbers are bytes, the total an estimate."""

    def __call__(self, done: int, total: int, what: str) -> None: ...


def silent(done: int, total: int, what: str) -> None:
    """No progress shown."""


_ours: set[FileKey] = set()
_ours_lock = threading.Lock()


@contextmanager
def sole_use(path: Path) -> Iterator[bool]:
    """Whether this process may open and close a file without taking locks from itself.

    True until the end of the block for the first who asks, unless some descriptor of this process
    is of that file. What is opened during the block goes unnoticed.
    """
    key = _key(path)
    if key is None or not DESCRIPTORS.is_dir():  # nothing there, or no POSIX locks here
        yield True
        return
    with _ours_lock:
        sole = key not in _ours and not _is_open(key)
        if sole:
            _ours.add(key)
    try:
        yield sole
    finally:
        if sole:
            _ours.discard(key)


def alone(
    path: Path, function: Callable[..., T], arguments: Sequence[object], progress: Progress
) -> T:
    """``function(*arguments, progress=progress)``, here if :func:`sole_use` allows, else apart.

    Raises:
        HnswcheckError: what the function raised.
        StoreUnreadable: no other process could be started, or it died.
    """
    with sole_use(path) as sole:
        if sole:
            return function(*arguments, progress=progress)
        return cast(T, call_apart(function, arguments, None if progress is silent else progress))


def _key(path: Path) -> FileKey | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def _is_open(key: FileKey) -> bool:
    for descriptor in DESCRIPTORS.iterdir():
        try:
            found = os.fstat(int(descriptor.name))
        except (OSError, ValueError):
            continue
        if (found.st_dev, found.st_ino) == key:
            return True
    return False


def call_apart(
    function: Callable[..., Any], arguments: Sequence[object], progress: Progress | None
) -> Any:
    """``function(*arguments)`` in a new Python process.

    Args:
        function: one that can be imported.
        progress: if given, the function gets a ``progress``, too, and each call of it comes here.

    Raises:
        HnswcheckError: what the function raised.
        StoreUnreadable: no Python could be started, or it died.
    """
    failed = "the store is open in this process, and reading it from another one failed"
    executable = get_executable() or sys.executable
    command = [os.fsdecode(executable), "-P", "-c", CHILD]
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise StoreUnreadable(f"{failed}: {error.strerror or error}") from error
    with child:
        assert child.stdin
        assert child.stdout
        try:
            pickle.dump(sys.path, child.stdin)
            pickle.dump((function, arguments, progress is not None), child.stdin)
            child.stdin.close()
            while True:
                kind, value = pickle.load(child.stdout)  # noqa: S301 - of our own process
                if kind == "progress" and progress is not None:
                    progress(*value)
                elif kind == "result":
                    return value
                elif kind == "error":
                    raise value
        except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
            raise StoreUnreadable(failed) from error
        finally:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(PATIENCE_SECONDS)  # it may have a copy to remove
            child.kill()


def exit_when_told() -> None:
    """Let signals that ask a process to end be exits, so that it leaves nothing behind."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))


def answer() -> None:
    """The other side of :func:`call_apart`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller's to handle, who then ends us
    exit_when_told()
    replies = sys.stdout.buffer
    sys.stdout = sys.stderr

    def reply(kind: str, value: object) -> None:
        pickle.dump((kind, value), replies)
        replies.flush()

    function, arguments, wants_progress = pickle.load(sys.stdin.buffer)  # noqa: S301
    options = {"progress": lambda *numbers: reply("progress", numbers)} if wants_progress else {}
    try:
        reply("result", function(*arguments, **options))
    except HnswcheckError as error:
        reply("error", error)
