"""Stores to audit, how to look at every trace a reader could leave, and how to run the program."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import multiprocessing
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from catalogue import ARCHIVE, EXPECTATION, places

import hnswcheck

REPOSITORY = Path(__file__).parents[2]
SUPPORT = REPOSITORY / "tests" / "support"
PLACES = places()
NAMES = list(PLACES)

#: Names the directory that all workers of a test run share.
TEST_RUN = "HNSWCHECK_TEST_RUN"

#: One fixture for each kind of store that a reader has to treat differently.
SOUND = "1.5.9-exactly-flushed"
LAGGING = "1.5.9-churn-l2"
DAMAGED = "1.5.9-damaged-folder-older"
HOT_JOURNAL = "1.5.9-damaged-hot-journal"
WAL_MODES = (
    "1.5.9-damaged-wal-mode-with-shm",
    "1.5.9-damaged-wal-mode-without-shm",
    "1.5.9-wal-mode-written",
)
ONLY_A_WARNING = "1.5.9-interrupted-first-flush"
#: Unreadable for whoever is not root.
NOBODY = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def needs(*tools: str) -> pytest.MarkDecorator:
    """Skip a test where a system tool is not installed."""
    absent = [tool for tool in tools if shutil.which(tool) is None]
    return pytest.mark.skipif(bool(absent), reason=f"no {', '.join(absent)} here")


@functools.cache
def may_mount() -> bool:
    """Whether a mount namespace of our own may be made here; root in a container may not."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    trial = ("unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt")
    return subprocess.run(trial, capture_output=True).returncode == 0


in_a_mount_namespace = pytest.mark.skipif(not may_mount(), reason="may not mount file systems")


def mounted(script: str) -> tuple[str, ...]:
    """The command that runs another one with mounts of its own, then what stands after it."""
    return ("unshare", "-m", "sh", "-c", f"set -e; {script}", "sh")


# --- Stores --------------------------------------------------------------------------------------


def unwrapped(text: str) -> str:
    """The words of a page, wherever its lines were broken."""
    return " ".join(text.split())


def unpack(name: str, target: Path) -> Path:
    """The persist directory of a fixture, unpacked below ``target``."""
    store = target / name
    with tarfile.open(PLACES[name].file(ARCHIVE)) as archive:
        if hasattr(tarfile, "tar_filter"):
            archive.extractall(store, filter="tar")
        else:  # Python before 3.11.4
            archive.extractall(store)
    return store


def expectation(name: str) -> dict[str, Any]:
    """What the generator expects of a fixture."""
    expected: dict[str, Any] = json.loads(PLACES[name].file(EXPECTATION).read_text("utf-8"))
    return expected


def rest(store: Path) -> Path:
    """Let a store look long finished: damage that was just written has to be looked at twice."""
    for path in [store, *store.rglob("*")]:
        os.utime(path, (0, 0), follow_symlinks=False)
    return store


def segment_folders(store: Path) -> list[Path]:
    """Folders with an index in them."""
    return sorted(path.parent for path in store.glob("*/header.bin"))


# --- Traces --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trace:
    """All that a reader could change of one file, except the time it was last read."""

    device: int
    inode: int
    mode: int
    links: int
    owner: int
    group: int
    size: int
    blocks: int
    mtime_ns: int
    ctime_ns: int
    attributes: tuple[tuple[str, bytes], ...]
    content: str


def snapshot(root: Path) -> dict[str, Trace]:
    """Contents and status of a directory and of everything in it, by path."""
    found = {".": _trace(root)}
    for path in sorted(root.rglob("*")):
        found[str(path.relative_to(root))] = _trace(path)
    return found


def _trace(path: Path) -> Trace:
    s = path.lstat()
    if stat.S_ISLNK(s.st_mode):
        content = str(path.readlink())
    elif stat.S_ISDIR(s.st_mode):
        content = "\n".join(sorted(os.listdir(path)))  # noqa: PTH208
    else:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    attributes: tuple[tuple[str, bytes], ...] = ()
    if sys.platform == "linux":
        names = os.listxattr(path, follow_symlinks=False)
        attributes = tuple((n, os.getxattr(path, n, follow_symlinks=False)) for n in names)
    return Trace(
        s.st_dev,
        s.st_ino,
        s.st_mode,
        s.st_nlink,
        s.st_uid,
        s.st_gid,
        s.st_size,
        s.st_blocks,
        s.st_mtime_ns,
        s.st_ctime_ns,
        attributes,
        content,
    )


# --- The program ---------------------------------------------------------------------------------

PROGRAM = (sys.executable, "-m", "hnswcheck")


def environment(**extra: str) -> dict[str, str]:
    """The environment of a child that imports this repository's package and writes no cache."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    quiet = {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "80"}
    dull = {"NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "TERM", "CI"}
    return {k: v for k, v in os.environ.items() if k not in dull} | quiet | extra


def run(
    *arguments: str | os.PathLike[str],
    prefix: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
    preexec_fn: Callable[[], None] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own; ``prefix`` is the command that runs it."""
    return subprocess.run(
        [*prefix, *PROGRAM, *(os.fspath(argument) for argument in arguments)],
        capture_output=True,
        text=True,
        errors="surrogateescape",
        env=environment(**(env or {})),
        cwd=cwd,
        timeout=timeout,
        check=False,
        preexec_fn=preexec_fn,
    )


def one_line(text: str) -> str:
    """``text`` if it is one line of ours and no traceback."""
    assert text.endswith("\n"), repr(text)
    assert len(text.splitlines()) == 1, text
    assert text.startswith("hnswcheck: "), text
    assert not re.search(r"Traceback|Error\b.*line \d+", text), text
    return text


# --- The corpus, audited -------------------------------------------------------------------------

Answer = hnswcheck.Report | hnswcheck.HnswcheckError


@functools.cache
def corpus_answers() -> dict[tuple[str, hnswcheck.Level], Answer]:
    """What an audit says of every fixture at every level: a report, or why there is none.

    Asked by one of the workers of a run, for all.
    """
    kept = Path(os.environ[TEST_RUN]) / "corpus-answers"
    with kept.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_all_answers()))
    answers: dict[tuple[str, hnswcheck.Level], Answer] = pickle.loads(kept.read_bytes())  # noqa: S301
    return answers


def _all_answers() -> dict[tuple[str, hnswcheck.Level], Answer]:
    halves = [NAMES[::2], NAMES[1::2]]
    with ProcessPoolExecutor(len(halves), multiprocessing.get_context("spawn")) as pool:
        return {key: answer for part in pool.map(_answers, halves) for key, answer in part.items()}


def _answers(names: Sequence[str]) -> dict[tuple[str, hnswcheck.Level], Answer]:
    answers: dict[tuple[str, hnswcheck.Level], Answer] = {}
    with tempfile.TemporaryDirectory() as scratch:
        stores = [unpack(name, Path(scratch)) for name in names]
        for store in stores:
            for level in hnswcheck.Level:
                try:
                    answers[store.name, level] = hnswcheck.audit(store, level)
                except hnswcheck.HnswcheckError as error:
                    answers[store.name, level] = error
    return answers
