"""Calls in a process of their own, for when this process has a database open already.

POSIX drops every lock that a process has on a file as soon as the process closes any descriptor of
that file (fcntl(2)), and an sqlite that is linked in twice does not know of the other's
descriptors (sqlite.org/howtocorrupt.html, section 2.2). Reading chroma.sqlite3 beside a client in
the same process would take the client's locks away; so would two audits in two threads.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from hnswcheck.errors import HnswcheckError, StoreUnreadable
from hnswcheck.progress import Progress, silent

T = TypeVar("T")

DESCRIPTORS = Path("/dev/fd")

CHILD = """
import pickle, sys
sys.path = pickle.load(sys.stdin.buffer)
from hnswcheck.isolation import answer
answer()
"""

FileKey = tuple[int, int]

PATIENCE_SECONDS = 5.0

#: A process that was kept leaves when nobody has asked for so long.
IDLE_SECONDS = 60

FAILED = "reading the store in another process failed"

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


def call_isolated_if_open(
    path: Path,
    function: Callable[..., T],
    arguments: Sequence[object],
    progress: Progress,
    keep: bool = False,
) -> T:
    """``function(*arguments, progress=progress)``, in a child process if ``path`` is open here.

    Args:
        path: the file that the function opens; :func:`sole_use` says whether it may do so here.
        keep: see :func:`call_in_child`.

    Raises:
        HnswcheckError: what the function raised.
        StoreUnreadable: no other process could be started, or it died.
    """
    with sole_use(path) as sole:
        if sole:
            return function(*arguments, progress=progress)
        listener = None if progress is silent else progress
        return cast(T, call_in_child(function, arguments, listener, keep))


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


def call_in_child(
    function: Callable[..., Any],
    arguments: Sequence[object],
    progress: Progress | None,
    keep: bool = False,
) -> Any:
    """``function(*arguments)`` in another Python process.

    Args:
        function: one that can be imported.
        progress: if given, the function gets a ``progress``, too, and each call of it comes here.
        keep: use a process that waits for such calls, and let it wait for more: it takes a
            fraction of a second to start one.

    Raises:
        HnswcheckError: what the function raised.
        StoreUnreadable: no Python could be started, or it died.
    """
    while keep and _waiting:
        with suppress(_Gone, IndexError):  # it has left, or another thread has taken it
            return _ask(_waiting.pop(), function, arguments, progress, keep)
    try:
        return _ask(_start(), function, arguments, progress, keep)
    except _Gone as error:
        raise StoreUnreadable(FAILED) from error


class _Gone(Exception):
    """The other process no longer answers."""


#: Processes that wait for a call. Each leaves by itself after a while.
_waiting: list[subprocess.Popen[bytes]] = []


def _forget() -> None:
    """What waits for the parent's calls is not for a forked child."""
    while _waiting:
        _waiting.pop().returncode = 0  # not ours to wait for


@atexit.register
def _dismiss() -> None:
    while _waiting:
        _end(_waiting.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def _start() -> subprocess.Popen[bytes]:
    from multiprocessing.spawn import get_executable  # many modules, which few calls need

    command = [os.fsdecode(get_executable() or sys.executable), "-P", "-c", CHILD]
    try:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    except OSError as error:
        raise StoreUnreadable(f"{FAILED}: {error.strerror or error}") from error
    assert child.stdin
    with suppress(OSError):  # found out when it is asked
        pickle.dump(sys.path, child.stdin)
    return child


def _end(child: subprocess.Popen[bytes]) -> None:
    with suppress(BrokenPipeError), child:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(PATIENCE_SECONDS)  # it may have a copy to remove
        child.kill()


def _ask(
    child: subprocess.Popen[bytes],
    function: Callable[..., Any],
    arguments: Sequence[object],
    progress: Progress | None,
    keep: bool,
) -> Any:
    assert child.stdin
    assert child.stdout
    answered = False
    try:
        pickle.dump((_here(), function, arguments, progress is not None), child.stdin)
        child.stdin.flush()
        while True:
            kind, value = pickle.load(child.stdout)  # noqa: S301 - of our own process
            if kind == "progress" and progress is not None:
                progress(*value)
            elif kind in ("result", "error"):
                answered = True
                break
    except (EOFError, BrokenPipeError, pickle.UnpicklingError) as error:
        raise _Gone from error
    finally:
        if keep and answered:
            _waiting.append(child)
        else:
            _end(child)
    if kind == "error":
        raise value
    return value


def _here() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:  # it was removed
        return None


def exit_when_told() -> None:
    """Let signals that ask a process to end be exits, so that it leaves nothing behind."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))


def answer() -> None:
    """The other side of :func:`call_in_child`: one call after the other."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller's to handle, who then ends us
    exit_when_told()
    replies = sys.stdout.buffer
    sys.stdout = sys.stderr

    def reply(kind: str, value: object) -> None:
        pickle.dump((kind, value), replies)
        replies.flush()

    while (request := _next_request()) is not None:
        here, function, arguments, wants_progress = request
        with suppress(OSError, TypeError):  # no such place any more
            os.chdir(here)  # a relative path means what it means to the caller
        options: dict[str, object] = {}
        if wants_progress:
            options["progress"] = lambda *numbers: reply("progress", numbers)
        try:
            reply("result", function(*arguments, **options))
        except HnswcheckError as error:
            reply("error", error)


def _next_request() -> tuple[Any, ...] | None:
    """None where the caller has gone, or has not asked for a while."""
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGALRM, lambda *_: sys.exit())
        signal.alarm(IDLE_SECONDS)
    try:
        request: tuple[Any, ...] = pickle.load(sys.stdin.buffer)  # noqa: S301 - of our own caller
    except EOFError:
        return None
    if hasattr(signal, "alarm"):
        signal.alarm(0)
    return request
