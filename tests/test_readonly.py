"""An audit writes nothing in the persist directory: not a byte, not a journal, not an mtime."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import (
    DAMAGED,
    HOT_JOURNAL,
    LAGGING,
    NOBODY,
    SOUND,
    WAL_MODES,
    as_root,
    environment,
    expectation,
    may_mount,
    needs,
    one_line,
    run,
    segment_folders,
    snapshot,
    unpack,
)

import hnswcheck
from hnswcheck import cli

LINKED = ("1.5.9-damaged-folder-symlink", "1.5.9-damaged-file-symlink")
#: Read in place, and read from a scratch copy.
IN_PLACE = (SOUND, LAGGING, DAMAGED, *LINKED, "0.4.24-churn-cosine")
COPIED = (HOT_JOURNAL, *WAL_MODES)
KINDS = (*IN_PLACE, *COPIED)
LEVELS = ("probe", "standard")

in_a_mount_namespace = pytest.mark.skipif(not may_mount(), reason="may not mount file systems")


def said(document: str) -> Any:
    """A JSON report without what differs from run to run."""
    report = json.loads(document)
    for store in report["stores"]:
        del store["elapsed_seconds"], store["path"]
    return report


def findings_of(name: str) -> set[str]:
    expected = expectation(name)
    found = set(expected["store"])
    for collection in (expected["collections"] or {}).values():
        found |= set(collection["findings"])
    return found


# --- Nothing changes -----------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", KINDS)
def test_contents_and_status_of_every_file_stay_what_they_were(
    name: str, level: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    around = tmp_path / "around"
    store = unpack(name, around)
    before = snapshot(around)
    report = hnswcheck.audit(store, level)
    assert snapshot(around) == before
    assert cli.run(["audit", str(store), "--level", level]) == report.exit_code()
    assert snapshot(around) == before
    assert capsys.readouterr().err == ""
    if level == "standard":  # what was left alone was read, too
        assert {found.id for found in report.findings} == findings_of(name)


def test_the_snapshot_sees_every_kind_of_trace(tmp_path: Path) -> None:
    store = unpack(SOUND, tmp_path)
    database = store / "chroma.sqlite3"
    for leave_a_trace in (
        lambda: os.utime(database),
        lambda: database.chmod(0o600),
        lambda: (store / "chroma.sqlite3-journal").touch(),
        lambda: (store / "chroma.sqlite3-journal").unlink(),
        lambda: os.link(database, tmp_path / "link"),
        lambda: os.chown(database, -1, -1),
    ):
        before = snapshot(store)
        leave_a_trace()
        assert snapshot(store) != before


# --- No system call that could write -------------------------------------------------------------

READING_CALLS = frozenset(
    "access faccessat faccessat2 stat lstat fstat newfstatat fstatat64 statx statfs fstatfs"
    " readlink readlinkat getdents getdents64 getxattr lgetxattr fgetxattr listxattr llistxattr"
    " flistxattr read pread64 readv preadv preadv2 lseek _llseek close dup dup2 dup3 chdir fchdir"
    " getcwd fadvise64 readahead name_to_handle_at poll ppoll select pselect6 inotify_add_watch"
    " epoll_ctl epoll_wait epoll_pwait execve".split()
)
#: Their strings are data, not paths.
DATA_CALLS = frozenset(
    "read pread64 readv preadv preadv2 write pwrite64 writev pwritev pwritev2 getcwd readlink"
    " readlinkat sendto recvfrom sendmsg recvmsg".split()
)
READING_FLAGS = frozenset(
    "O_RDONLY O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_DIRECTORY O_LARGEFILE O_NOCTTY O_PATH"
    " O_NOATIME".split()
)
READING_FCNTL = frozenset(
    "F_GETFD F_SETFD F_GETFL F_DUPFD F_DUPFD_CLOEXEC F_GETLK F_OFD_GETLK".split()
)
READ_LOCKS = re.compile(r"F_(?:OFD_)?SETLKW?, \{l_type=F_(?:RDLCK|UNLCK),")

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
DESCRIPTOR = re.compile(r"\b(?:AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>")


def violations(trace: str, root: Path) -> list[str]:
    """The lines of ``strace -y`` that are not a mere reading of something below ``root``."""
    return [line for line in trace.splitlines() if _touches(line, root) and not _reads(line, root)]


def _touches(line: str, root: Path) -> bool:
    call = line.partition("(")[0]
    bare = QUOTED.sub('""', line)
    places = DESCRIPTOR.findall(bare)
    if call not in DATA_CALLS:
        directories = [Path(place) for place in places if place.startswith("/")]
        for path in QUOTED.findall(line):
            places.append(path)
            # Where no descriptor says what a path is relative to, it may be relative to anything.
            places += [str(directory / path) for directory in directories or [root]]
    return any(_is_below(place, root) for place in places)


def _is_below(place: str, root: Path) -> bool:
    path = os.path.normpath(place.removesuffix(" (deleted)").removesuffix("(deleted)"))
    return path == str(root) or path.startswith(f"{root}/")


def _reads(line: str, root: Path) -> bool:
    call, _, arguments = line.partition("(")
    match call:
        case "open" | "openat":
            flags = set(re.findall(r"\bO_[A-Z_]+", QUOTED.sub("", arguments)))
            return "O_RDONLY" in flags and flags <= READING_FLAGS
        case "fcntl":
            _, _, command = arguments.partition(", ")
            return command.split(",")[0].split(")")[0] in READING_FCNTL or bool(
                READ_LOCKS.match(command)
            )
        case "mmap":
            return "PROT_WRITE" not in arguments or "MAP_PRIVATE" in arguments
        case "ioctl":
            return "TCGETS" in arguments or "FIOCLEX" in arguments
        case "sendfile" | "copy_file_range" | "splice":
            target = 0 if call == "sendfile" else 1
            return not _is_below(DESCRIPTOR.findall(arguments)[target], root)
        case _:
            return call in READING_CALLS


def traced(script: str, *arguments: str | Path, scratch: Path) -> str:
    """What ``strace`` says of a Python script, thread by thread."""
    output = scratch / "strace"
    output.mkdir()
    command = ["strace", "-ff", "-y", "-qq", "-s", "4096", "-o", str(output / "call")]
    command += ["-e", "trace=%file,%desc,mmap", sys.executable, "-c", script]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd="/",
        timeout=120,
        check=False,
    )
    if "ptrace" in done.stderr and "not permitted" in done.stderr.lower():
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    parts = sorted(output.iterdir())
    assert parts
    return "".join(part.read_text("utf-8", "replace") for part in parts)


AUDIT_ALL = """
import io, sys, contextlib, hnswcheck
from hnswcheck import cli
for store in sys.argv[1:]:
    for level in ("probe", "standard"):
        hnswcheck.audit(store, level)
        with contextlib.redirect_stdout(io.StringIO()):
            cli.run(["audit", store, "--level", level])
"""


@needs("strace")
def test_no_system_call_below_the_store_could_write(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "stores"
    stores = [unpack(name, root) for name in KINDS]
    trace = traced(AUDIT_ALL, *stores, scratch=tmp_path)
    assert violations(trace, root) == []
    for store in stores:  # each was opened, so the trace is not just empty
        assert re.search(rf'openat\(.*"{re.escape(str(store))}/chroma\.sqlite3", O_RDONLY', trace)


WRITE_EVERYTHING = """
import fcntl, mmap, os, sqlite3, sys
from pathlib import Path
root = Path(sys.argv[1])
os.chdir(root)
attempts = {
    "open-to-write": lambda p: p.open("w"),
    "open-to-append": lambda p: p.open("a"),
    "open-to-change-and-do-not": lambda p: os.close(os.open(p, os.O_RDWR)),
    "open-to-create": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_CREAT)),
    "open-to-empty": lambda p: os.close(os.open(p, os.O_RDONLY | os.O_TRUNC)),
    "open-relative": lambda p: open("open-relative", "r+"),
    "utime": os.utime,
    "chmod": lambda p: p.chmod(0o644),
    "chown": lambda p: os.chown(p, -1, -1),
    "truncate": lambda p: os.truncate(p, 0),
    "unlink": Path.unlink,
    "unlink-relative": lambda p: os.unlink("unlink-relative"),
    "rename": lambda p: p.rename(root / "rename-2"),
    "rename-away": lambda p: p.rename(sys.argv[2]),
    "link": lambda p: os.link(p, root / "link-2"),
    "symlink": lambda p: os.symlink("x", root / "symlink-2"),
    "mkdir": lambda p: os.mkdir(root / "mkdir-2"),
    "rmdir": lambda p: os.rmdir(root / "rmdir-2"),
    "mkfifo": lambda p: os.mkfifo(root / "mkfifo-2"),
    "setxattr": lambda p: os.setxattr(p, "user.x", b"x"),
}
by_descriptor = {
    "write": lambda f: os.write(f, b"x"),
    "pwrite": lambda f: os.pwrite(f, b"x", 0),
    "writev": lambda f: os.writev(f, [b"x"]),
    "ftruncate": lambda f: os.ftruncate(f, 0),
    "fallocate": lambda f: os.posix_fallocate(f, 0, 10),
    "fchmod": lambda f: os.fchmod(f, 0o644),
    "fchown": lambda f: os.fchown(f, -1, -1),
    "futimens": lambda f: os.utime(f),
    "fsync": os.fsync,
    "sendfile": lambda f: os.sendfile(f, os.open("/etc/passwd", os.O_RDONLY), 0, 1),
    "write-lock": lambda f: fcntl.lockf(f, fcntl.LOCK_EX),
    "mmap": lambda f: mmap.mmap(f, 1),
}
(root / "rmdir-2").mkdir()
for name, attempt in attempts.items():
    (root / name).write_text("x")
    print("--- now", name, file=open("/dev/null", "w"))
    try: os.stat(f"/ATTEMPT {name}")
    except OSError: pass
    try: attempt(root / name)
    except OSError: pass
for name, attempt in by_descriptor.items():
    (root / name).write_text("x")
    descriptor = os.open(root / name, os.O_RDWR)
    try: os.stat(f"/ATTEMPT {name}")
    except OSError: pass
    try: attempt(descriptor)
    except OSError: pass
database = sqlite3.connect(root / "sqlite.db")
try: os.stat(f"/ATTEMPT sqlite")
except OSError: pass
database.execute("CREATE TABLE t (x)")
try: os.stat(f"/ATTEMPT none")
except OSError: pass
os.listdir(root); os.stat(root / "write"); open(root / "write").read(); os.access(root, os.R_OK)
fcntl.lockf(open(root / "write"), fcntl.LOCK_SH)
"""


@needs("strace")
def test_the_watch_over_system_calls_sees_every_way_to_write(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "store"
    root.mkdir()
    trace = traced(WRITE_EVERYTHING, root, tmp_path / "away", scratch=tmp_path)
    attempts = re.split(r"^\S*stat\w*\(.*\"/ATTEMPT ([\w-]+)\".*$", trace, flags=re.MULTILINE)
    seen = {
        name: bool(violations(calls.partition("/ATTEMPT")[0], root))
        for name, calls in zip(attempts[1::2], attempts[2::2], strict=True)
    }
    assert len(seen) == 34
    assert seen.pop("none") is False
    # Up to the next attempt there is also the writing of its own file: look at this one's only.
    assert all(seen.values()), [name for name, found in seen.items() if not found]
