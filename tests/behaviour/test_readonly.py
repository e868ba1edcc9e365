"""An audit writes nothing in the persist directory: not a byte, not a journal, not an mtime."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from hnswcheck.cli import app as cli

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


# --- Nothing changes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_contents_and_status_of_every_file_stay_what_they_were(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    around = tmp_path / "around"
    store = unpack(name, around)
    before = snapshot(around)
    for level in LEVELS:
        report = hnswcheck.audit(store, level)
        assert snapshot(around) == before
    assert cli.run(["audit", str(store)]) == report.exit_code() == expectation(name)["exit"]
    assert snapshot(around) == before
    assert capsys.readouterr().err == ""


def test_the_snapshot_sees_every_kind_of_trace(tmp_path: Path) -> None:
    store = unpack(SOUND, tmp_path)
    database = store / "chroma.sqlite3"
    traces: tuple[Callable[[], object], ...] = (
        lambda: os.utime(database),
        lambda: database.chmod(0o600),
        lambda: (store / "chroma.sqlite3-journal").touch(),
        lambda: (store / "chroma.sqlite3-journal").unlink(),
        lambda: os.link(database, tmp_path / "link"),
        lambda: os.chown(database, -1, -1),
    )
    for leave_a_trace in traces:
        before = snapshot(store)
        leave_a_trace()
        assert snapshot(store) != before


# --- No system call that could write -------------------------------------------------------------

READING_CALLS = """
access faccessat faccessat2 stat lstat fstat newfstatat fstatat64 statx statfs fstatfs readlink
readlinkat getdents getdents64 getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr read
pread64 readv preadv preadv2 lseek _llseek close dup dup2 dup3 chdir fchdir getcwd fadvise64
readahead name_to_handle_at poll ppoll select pselect6 inotify_add_watch epoll_ctl epoll_wait
epoll_pwait execve
"""
#: Their strings are data, not paths.
DATA_CALLS = """
read pread64 readv preadv preadv2 write pwrite64 writev pwritev pwritev2 getcwd readlink readlinkat
sendto recvfrom sendmsg recvmsg
"""
READING_FLAGS = """
O_RDONLY O_CLOEXEC O_NOFOLLOW O_NONBLOCK O_DIRECTORY O_LARGEFILE O_NOCTTY O_PATH O_NOATIME
"""
READING_FCNTL = "F_GETFD F_SETFD F_GETFL F_DUPFD F_DUPFD_CLOEXEC F_GETLK F_OFD_GETLK"
READ_LOCKS = re.compile(r"F_(?:OFD_)?SETLKW?, \{l_type=F_(?:RDLCK|UNLCK),")

QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
DESCRIPTOR = re.compile(r"\b(?:AT_FDCWD|\d+)<((?:[^>\\]|\\.)*)>")
RELATIVE = re.compile(rf"{DESCRIPTOR.pattern}, {QUOTED.pattern}")


def violations(trace: str, root: Path) -> list[str]:
    """The lines of ``strace -y`` that are not a mere reading of something below ``root``."""
    return [line for line in trace.splitlines() if _touches(line, root) and not _reads(line, root)]


def _touches(line: str, root: Path) -> bool:
    if line.partition("(")[0] in DATA_CALLS.split():
        places = DESCRIPTOR.findall(QUOTED.sub("", line))
    else:
        alone = RELATIVE.sub("", line)
        places = DESCRIPTOR.findall(QUOTED.sub("", alone))
        places += [str(Path(directory) / path) for directory, path in RELATIVE.findall(line)]
        # Where no descriptor says what a path is relative to, it may be relative to anything.
        places += [str(root / path) for path in QUOTED.findall(alone)]
    return any(_is_below(place, root) for place in places)


def _is_below(place: str, root: Path) -> bool:
    path = os.path.normpath(place.removesuffix(" (deleted)").removesuffix("(deleted)"))
    return path == str(root) or path.startswith(f"{root}/")


def _reads(line: str, root: Path) -> bool:
    call, _, arguments = line.partition("(")
    match call:
        case "open" | "openat":
            flags = set(re.findall(r"\bO_[A-Z_]+", QUOTED.sub("", arguments)))
            return "O_RDONLY" in flags and flags <= set(READING_FLAGS.split())
        case "fcntl":
            _, _, command = arguments.partition(", ")
            return command.split(",")[0].split(")")[0] in READING_FCNTL.split() or bool(
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
            return call in READING_CALLS.split()


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
from hnswcheck.cli import app as cli
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
for name in (*attempts, *by_descriptor):
    (root / name).write_text("x")
descriptors = {name: os.open(root / name, os.O_RDWR) for name in by_descriptor}
database = sqlite3.connect(root / "sqlite.db")
database.execute("SELECT 1")


def now(name):
    os.path.exists(f"/ATTEMPT {name}")


for name, attempt in attempts.items():
    now(name)
    try:
        attempt(root / name)
    except OSError:
        pass
for name, attempt in by_descriptor.items():
    now(name)
    try:
        attempt(descriptors[name])
    except OSError:
        pass
now("sqlite")
database.execute("CREATE TABLE t (x)")
now("none")
os.listdir(root)
os.access(root, os.W_OK)
with open(root / "write") as file:
    file.read()
    fcntl.lockf(file, fcntl.LOCK_SH)
    os.sendfile(os.open("/dev/null", os.O_WRONLY), file.fileno(), 0, 1)
    mmap.mmap(file.fileno(), 1, prot=mmap.PROT_READ)
now("end")
"""


@needs("strace")
def test_the_watch_over_system_calls_sees_every_way_to_write(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "store"
    root.mkdir()
    trace = traced(WRITE_EVERYTHING, root, tmp_path / "away", scratch=tmp_path)
    _, *attempts = re.split(r'^.*"/ATTEMPT ([\w-]+)".*$', trace, flags=re.MULTILINE)
    seen = {
        name: bool(violations(calls, root))
        for name, calls in zip(attempts[::2], attempts[1::2], strict=True)
    }
    assert seen.pop("end") is seen.pop("none") is False
    assert len(seen) == 33
    assert [name for name, found in seen.items() if not found] == []


# --- Where nothing can be written ----------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that every user may enter; those of pytest are private."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name).resolve()
        path.chmod(0o755)
        yield path
        for folder in path.rglob("*"):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o755)


def in_namespace(script: str) -> list[str]:
    """The command that runs another one with mounts of its own."""
    return ["unshare", "-m", "sh", "-ec", f'{script}\nexec "$@"', "sh"]


@in_a_mount_namespace
def test_a_read_only_mount_gives_the_same_report(tmp_path: Path) -> None:
    stores = [unpack(name, tmp_path / "stores") for name in KINDS]
    root = tmp_path / "stores"
    mount = in_namespace(
        f"mount --bind {root} {root}; mount -o remount,bind,ro {root}; ! touch {root}/x 2>/dev/null"
    )
    usual = run("audit", *stores, "--format", "json")
    done = run("audit", *stores, "--format", "json", prefix=mount)
    assert done.stderr == ""
    assert done.returncode == usual.returncode == 1
    assert said(done.stdout) == said(usual.stdout)


NOBODYS = """
import contextlib, io, json, os, sys
from hnswcheck.cli import app as cli

def run(arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(arguments)
    return code, out.getvalue(), err.getvalue()

store, nobody, *commands = map(json.loads, sys.argv[1:])
for warm_up in (["audit", store], ["audit", "/none"], ["audit", store, "--level", "none"]):
    run(warm_up)  # what is imported late may not be readable for nobody
os.setgroups([])
os.setresgid(nobody, nobody, nobody)
os.setresuid(nobody, nobody, nobody)
print(json.dumps([run(arguments) for arguments in commands]))
"""


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


def as_nobody(warm_up: Path, *commands: Sequence[str | Path]) -> list[Done]:
    """Run commands as a user who owns nothing, whatever may be read on the way to Python."""
    values = [str(warm_up), NOBODY, *([str(word) for word in words] for words in commands)]
    done = subprocess.run(
        [sys.executable, "-c", NOBODYS, *map(json.dumps, values)],
        capture_output=True,
        text=True,
        env=environment(),
        cwd="/",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Done(*each) for each in json.loads(done.stdout)]


@as_root
def test_a_directory_of_somebody_else_gives_the_same_report(public: Path) -> None:
    stores = [unpack(name, public / "stores") for name in KINDS]
    usual = run("audit", *stores, "--format", "json")
    for path in (public / "stores").rglob("*"):
        os.chown(path, 12345, 12345, follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    before = snapshot(public)
    (done,) = as_nobody(stores[0], ["audit", *stores, "--format", "json"])
    assert done.err == ""
    assert done.code == usual.returncode
    assert said(done.out) == said(usual.stdout)
    assert snapshot(public) == before


@as_root
def test_a_persist_directory_that_may_not_be_read_is_undecided(public: Path) -> None:
    other = unpack(LAGGING, public)
    stores = [unpack(SOUND, public / mode) for mode in ("000", "111", "311", "444")]
    commands: list[Sequence[str | Path]] = []
    for store in stores:
        store.chmod(int(store.parent.name, 8))
        commands += [["audit", store], ["audit", other, store, "--format", "json"]]
    results = as_nobody(other, *commands)
    for store, alone, both in zip(stores, results[::2], results[1::2], strict=True):
        assert str(store) in one_line(alone.err)
        assert (alone.code, verdict(alone.out)) == (3, "undecided")
        one_line(both.err)
        assert both.code == 3
        fine, unread = json.loads(both.out)["stores"]
        assert (fine["verdict"], unread["verdict"]) == ("consistent", "undecided")
        assert [found["id"] for found in unread["findings"]] == ["file-unreadable"]


def verdict(output: str) -> str:
    return output.splitlines()[-1].partition(":")[0]


@as_root
def test_a_directory_without_leave_to_list_gives_no_traceback_on_garbage(public: Path) -> None:
    other, store = unpack(SOUND, public), public / "garbage"
    store.mkdir()
    (store / "chroma.sqlite3").write_text("no database")
    store.chmod(0o311)
    (done,) = as_nobody(other, ["audit", store])
    assert str(store) in one_line(done.err)
    assert (done.code, verdict(done.out)) == (3, "undecided")


@as_root
def test_a_database_that_may_not_be_read_is_undecided(public: Path) -> None:
    commands: list[Sequence[str | Path]] = []
    for name in (SOUND, HOT_JOURNAL, WAL_MODES[0]):
        for file in ("chroma.sqlite3", "chroma.sqlite3-journal", "chroma.sqlite3-wal"):
            store = unpack(name, public / file)
            if (store / file).exists():
                (store / file).chmod(0)
                commands += [["audit", store, "--level", level] for level in LEVELS]
    assert len(commands) == 10
    other = unpack(SOUND, public)
    before = snapshot(public)
    for done in as_nobody(other, *commands):
        assert "chroma.sqlite3" in one_line(done.err)
        assert "ermission denied" in done.err
        assert (done.code, verdict(done.out)) == (3, "undecided")
    assert snapshot(public) == before


@as_root
def test_a_segment_file_that_may_not_be_read_is_undecided(public: Path) -> None:
    commands: list[Sequence[str | Path]] = []
    for file in ("header.bin", "data_level0.bin", "link_lists.bin", "index_metadata.pickle", "."):
        store = unpack(SOUND, public / f"without {file}")
        (folder,) = segment_folders(store)
        (folder / file).chmod(0)
        commands += [["audit", store], ["audit", store, "--format", "json"]]
    results = as_nobody(unpack(SOUND, public), *commands)
    for text, document in zip(results[::2], results[1::2], strict=True):
        assert text.code == document.code == 3
        assert "Traceback" not in text.err
        assert len(text.err.splitlines()) <= 1
        assert "Permission denied" in text.out + text.err
        (found,) = json.loads(document.out)["stores"]
        assert (found["verdict"], found["complete"]) == ("undecided", False)
        ids = [f["id"] for s in (found, *found["segments"]) for f in s["findings"]]
        assert ids == ["file-unreadable"]
        assert [segment["status"] for segment in found["segments"]] == ["undecided"]


@as_root
def test_one_segment_that_may_not_be_read_does_not_hide_the_others(public: Path) -> None:
    store = unpack("1.5.9-tenants", public)
    other = unpack(SOUND, public)
    first, *rest = segment_folders(store)
    assert rest
    (first / "data_level0.bin").chmod(0)
    (done,) = as_nobody(other, ["audit", store, "--format", "json"])
    (found,) = json.loads(done.out)["stores"]
    statuses = {s["vector_segment"]: s["status"] for s in found["segments"]}
    assert statuses.pop(first.name) == "undecided"
    assert set(statuses.values()) <= {"consistent", "lagging", "empty"}
    assert done.code == 3


@as_root
def test_damage_stays_damage_beside_a_quarantined_folder_that_may_not_be_read(
    public: Path,
) -> None:
    store, other = unpack(DAMAGED, public), unpack(SOUND, public)
    (folder,) = segment_folders(store)
    aside = folder.with_name(f"{folder.name}.drift-20250101-000000")
    shutil.copytree(folder, aside)
    aside.chmod(0)
    (done,) = as_nobody(other, ["audit", store, "--format", "json"])
    assert done.code == 1
    (segment,) = json.loads(done.out)["stores"][0]["segments"]
    assert segment["status"] == "diverged"
    assert segment["ledger"]["missing"] > 0


# --- Whatever the path is called -----------------------------------------------------------------

ODD_NAMES = [
    "with space",
    "question?mark",
    "question?mode=rwc",
    "hash#tag",
    "per%cent",
    "per%00cent",
    "per%2Fcent",
    "quote'\"quote",
    "back\\slash",
    "newline\nname",
    "escape\x1b[31m",
    "ünïcödé ✓ 日本",
    "-dash",
    "~tilde",
    "$HOME",
    "file:name",
    "[brackets]*",
    os.fsdecode(b"not \xff\xfe utf-8"),
    "n" * 250,
]


@pytest.mark.parametrize("odd", ODD_NAMES, ids=ascii)
@pytest.mark.parametrize("name", [LAGGING, WAL_MODES[0]], ids=["in place", "copied"])
def test_any_name_will_do(
    name: str,
    odd: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    around = tmp_path / "around"
    store = unpack(name, tmp_path / "unpacked").rename(_made(around) / odd)
    scratch = _made(tmp_path / f"scratch {odd}"[:250])
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = snapshot(around)
    report = hnswcheck.audit(store)
    assert report.verdict == "consistent"
    assert report.stores[0].segments[0].ledger.records
    monkeypatch.chdir(around)
    assert cli.run(["audit", "--format", "json", "--", odd]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.isascii()
    assert snapshot(around) == before
    assert list(scratch.iterdir()) == []


def _made(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("name", [LAGGING, WAL_MODES[0]], ids=["in place", "copied"])
def test_any_way_to_the_directory_will_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = unpack(name, tmp_path / "around")
    (tmp_path / "link").symlink_to(store)
    (tmp_path / "relative-link").symlink_to(Path("around") / name)
    before = snapshot(tmp_path)
    usual = said(hnswcheck.audit(store).to_json())
    monkeypatch.chdir(store)
    for way in (
        ".",
        "./",
        f"../{name}",
        f"{store}/",
        f"{store}//",
        f"/{store}",
        f"//{store}",
        f"{store}/../{name}/.",
        str(tmp_path / "link"),
        f"{tmp_path / 'link'}/",
        str(tmp_path / "relative-link"),
    ):
        assert said(hnswcheck.audit(way).to_json()) == usual, way
    assert snapshot(tmp_path) == before


# --- Scratch copies ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [HOT_JOURNAL, WAL_MODES[0]])
def test_scratch_copies_are_made_in_tmpdir_and_removed(name: str, tmp_path: Path) -> None:
    store = unpack(name, tmp_path)
    scratch = _made(tmp_path / "scratch")
    stamp = scratch.stat().st_mtime_ns
    done = run("audit", store, env={"TMPDIR": str(scratch)})
    assert done.returncode == expectation(name)["exit"]
    assert scratch.stat().st_mtime_ns > stamp
    assert list(scratch.iterdir()) == []


def test_scratch_copies_are_removed_when_the_audit_fails(tmp_path: Path) -> None:
    store = unpack(WAL_MODES[0], tmp_path)
    scratch = _made(tmp_path / "scratch")
    done = run("audit", store, "--collection", "none of these", env={"TMPDIR": str(scratch)})
    assert done.returncode == 2
    assert list(scratch.iterdir()) == []


@in_a_mount_namespace
def test_too_little_scratch_space_is_one_line(tmp_path: Path) -> None:
    store = unpack(WAL_MODES[0], tmp_path)
    tiny = _made(tmp_path / "tiny")
    before = snapshot(store)
    mount = in_namespace(f"mount -t tmpfs -o size=64k none {tiny}")
    done = run("audit", store, prefix=mount, env={"TMPDIR": str(tiny)})
    assert re.search("scratch|TMPDIR|copied", one_line(done.stderr))
    assert (done.returncode, verdict(done.stdout)) == (3, "undecided")
    demo = run("demo", prefix=mount, env={"TMPDIR": str(tiny)})
    assert demo.returncode == 3
    one_line(demo.stderr)
    assert snapshot(store) == before


#: Python must stay where it is, also below /tmp.
COVER_TMP = """
for folder in /tmp /var/tmp; do
    mount --bind $folder $folder
    mount -o remount,bind,ro $folder
done
"""


@in_a_mount_namespace
def test_without_any_scratch_directory_there_is_one_line(tmp_path: Path) -> None:
    store = unpack(WAL_MODES[0], tmp_path)
    mount = in_namespace(
        f"mkdir -p /mnt; mount --bind {tmp_path} /mnt; mount -o remount,bind,ro /mnt;"
        f" {COVER_TMP} cd /mnt"
    )
    done = run("audit", f"/mnt/{store.name}", prefix=mount, env={"TMPDIR": "/nowhere"})
    assert re.search("scratch|TMPDIR|copied", one_line(done.stderr))
    assert (done.returncode, verdict(done.stdout)) == (3, "undecided")


@in_a_mount_namespace
def test_the_current_directory_is_no_scratch_directory_if_it_is_the_store(tmp_path: Path) -> None:
    store = unpack(WAL_MODES[0], tmp_path)
    before = snapshot(store)
    mount = in_namespace(
        f"mkdir -p /mnt; mount --bind {tmp_path} /mnt; {COVER_TMP} cd /mnt/{store.name}"
    )
    done = run("audit", ".", prefix=mount, env={"TMPDIR": "/nowhere"})
    assert snapshot(store) == before
    one_line(done.stderr)
    assert (done.returncode, verdict(done.stdout)) == (3, "undecided")


@pytest.mark.parametrize("inside", [".", "folder"])
def test_no_scratch_copy_is_made_inside_the_store(inside: str, tmp_path: Path) -> None:
    store = unpack(WAL_MODES[0], tmp_path)
    (store / "folder").mkdir()
    before = snapshot(store)
    done = run("audit", store, env={"TMPDIR": str(store / inside)})
    assert snapshot(store) == before
    # Elsewhere is as good; saying that it is no good place, too.
    assert done.returncode in (0, 3)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("place", ["report.txt", "chroma.sqlite3", "header.bin"])
def test_no_report_is_written_into_the_store(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = unpack(SOUND, tmp_path)
    (folder,) = segment_folders(store)
    target = (folder if place == "header.bin" else store) / place
    before = snapshot(store)
    code = cli.run(["audit", str(store), "-o", str(target)])
    assert snapshot(store) == before
    output = capsys.readouterr()
    one_line(output.err)
    assert (code, output.out) == (2, "")


@pytest.mark.parametrize("name", [HOT_JOURNAL, *WAL_MODES])
def test_a_link_to_a_database_is_read_with_what_lies_beside_its_target(
    name: str, tmp_path: Path
) -> None:
    """sqlite looks for journal and -wal there, and so does Chroma."""
    store = unpack(name, tmp_path)
    usual = hnswcheck.audit(store)
    elsewhere = _made(tmp_path / "elsewhere")
    for path in store.glob("chroma.sqlite3*"):
        path.rename(elsewhere / path.name)
    (store / "chroma.sqlite3").symlink_to(elsewhere / "chroma.sqlite3")
    before = snapshot(tmp_path)
    linked = hnswcheck.audit(store)
    assert snapshot(tmp_path) == before
    assert [s.segments for s in linked.stores] == [s.segments for s in usual.stores]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_copy_behind(number: signal.Signals, tmp_path: Path) -> None:
    store, scratch = unpack(WAL_MODES[0], tmp_path), _made(tmp_path / "scratch")
    with (store / "chroma.sqlite3-wal").open("ab") as file:
        file.truncate(2 << 30)  # takes a while to copy
    command = [sys.executable, "-m", "hnswcheck", "audit", str(store)]
    with subprocess.Popen(command, env=environment(TMPDIR=str(scratch))) as process:
        until = time.monotonic() + 30
        while not list(scratch.glob("*/*")) and time.monotonic() < until:
            time.sleep(0.005)
        assert list(scratch.iterdir())
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert list(scratch.iterdir()) == []
