"""Any byte of any file changed, cut or swapped: an audit never raises, hangs, allocates without
bound or writes.

Hypothesis vandalises small stores; behind that come the attacks that chance would not find, one
list each for id maps, headers, link lists, sqlite and the directory itself.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import stat
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reader import HEADER, HEADER_FIELDS
from stores import run, unpack
from synthetic import CollectionSpec, Op, Segment, WalRow, write_store

import hnswcheck
from hnswcheck.formats.id_map import IdMap, Pairs, decode_id_map

pytestmark = pytest.mark.slow

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
LEVELS = ("probe", "standard")
SECONDS = 30
#: What an audit may take: so much, and so many times what the store takes on disk.
HEADROOM, MULTIPLE = 128 << 20, 16
#: The same of an id map: a genuine one takes about twice its size, pairs of four bytes 26 times.
SLACK, ID_MAP_MULTIPLE = 4 << 20, 32
TEBIBYTE = 1 << 40
HASHED = 64 << 20  # longer files are sparse, and their size and times have to do

DATABASE = "chroma.sqlite3"
ID_MAP = "index_metadata.pickle"
BASES = ("1.5.9-churn-cosine", "1.5.9-interleaved", "0.6.3-churn-l2", "0.4.24-churn-ip")
SMALL = "1.5.9-absent-ids"
JOURNALS = ("1.5.9-damaged-hot-journal", "1.5.9-damaged-wal-mode-with-shm")

Answer = hnswcheck.Report | hnswcheck.HnswcheckError


# --- What every store has to survive ------------------------------------------------------------


class TooSlow(BaseException):
    """Nothing that catches exceptions catches this."""


@contextmanager
def bounded(size: int = 0) -> Iterator[None]:
    """Fail what takes too long, and let what allocates too much run out of memory."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise TooSlow(f"still at it after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    allowed = HEADROOM + MULTIPLE * size
    resource.setrlimit(resource.RLIMIT_DATA, (_data_in_use() + allowed, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def _data_in_use() -> int:
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[5]) * resource.getpagesize()


def settle(root: Path) -> None:
    """Let a store look long finished; what was just written would be looked at twice."""
    for path in _everything(root):
        os.utime(path, (0, 0), follow_symlinks=False)


def _everything(root: Path) -> Iterator[bytes]:
    yield os.fsencode(root)
    for folder, folders, files in os.walk(os.fsencode(root)):
        for name in (*folders, *files):
            yield os.path.join(folder, name)  # noqa: PTH118 - names that are no text


def trace(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything of every file but the time it was last read."""
    found: dict[bytes, tuple[object, ...]] = {}
    for path in _everything(root):
        s = os.lstat(path)
        content = b""
        if stat.S_ISREG(s.st_mode) and s.st_size < HASHED:
            content = sha256(Path(os.fsdecode(path)).read_bytes()).digest()
        times = (s.st_mtime_ns, s.st_ctime_ns)
        found[path] = (s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_size, *times, content)
    return found


def audited(root: Path) -> dict[str, Answer]:
    """What each level says of a store, which has to be something, soon, and leave no trace."""
    settle(root)
    before = trace(root)
    answers = {level: _answer(root, level) for level in LEVELS}
    assert trace(root) == before
    return answers


def _answer(root: Path, level: str) -> Answer:
    answer: Answer
    with bounded(sum(512 * os.lstat(path).st_blocks for path in _everything(root))):
        try:
            answer = hnswcheck.audit(root, level)
        except hnswcheck.HnswcheckError as error:
            answer = error
        shown = str(answer) if isinstance(answer, Exception) else answer.to_json(indent=None)
    assert shown.isprintable()
    return answer


def statuses(answer: Answer) -> set[str]:
    assert isinstance(answer, hnswcheck.Report), answer
    return {segment.status for store in answer.stores for segment in store.segments}


def is_content(answer: Answer) -> bool:
    return isinstance(answer, hnswcheck.Report) and answer.verdict == "consistent"


# --- Stores to vandalise ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bases:
    """Fixtures, unpacked once; every test changes copies."""

    root: Path

    def pristine(self, name: str) -> Path:
        if not (self.root / name).exists():
            unpack(name, self.root)
        return self.root / name

    def copy(self, name: str, target: Path) -> Path:
        shutil.copytree(self.pristine(name), target, symlinks=True)
        return target


@pytest.fixture(scope="session", autouse=True)
def _no_time_to_settle() -> Iterator[None]:
    """Nobody writes to these stores, so no audit has to wait for a clock to tick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hnswcheck.store.view.CLOCK_TICK_NS", 0)
        yield


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return Bases(tmp_path_factory.mktemp("bases"))


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Names for new directories, also where one test runs many times."""
    root, numbers = tmp_path_factory.mktemp("hostile"), count()
    yield lambda: root / str(next(numbers))
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def store(bases: Bases, fresh: Callable[[], Path]) -> Path:
    """A small sound store with one flushed collection."""
    return bases.copy(SMALL, fresh())


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def folders_of(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir())


def the_folder(root: Path) -> Path:
    (path,) = (header.parent for header in root.glob("*/header.bin"))
    return path


# --- Chance -------------------------------------------------------------------------------------

Draw = st.DataObject
HEADER_OFFSETS = [HEADER.size - struct.calcsize("<" + HEADER.format[at:]) for at in range(1, 15)]
WORDS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 1 << 15, 0xFFFF, 1 << 24, 1 << 31, (1 << 31) - 1)
WIDE_WORDS = (*WORDS, (1 << 32) - 1, 1 << 32, 1 << 53, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)


def a_file(data: Draw, root: Path) -> Path:
    return data.draw(st.sampled_from(files_of(root)), "file")


def a_place(data: Draw, path: Path) -> int:
    """An offset: of a header field or a page's head, near an end, or anywhere."""
    size = path.stat().st_size
    heads = HEADER_OFFSETS if path.name == "header.bin" else [0, 3, 5, 8, 12, 16, 24, 28, 56, 100]
    within = st.integers(0, size)
    special = st.builds(
        lambda page, at: min(page * 4096 + at, size),
        st.integers(0, size // 4096),
        st.sampled_from(heads),
    )
    return data.draw(st.one_of(special, within, within.map(lambda back: size - back)), "at")


def patch(path: Path, at: int, new: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(new)] = new[: max(0, len(content) - at)]
    path.write_bytes(content)


def flip_bits(data: Draw, root: Path) -> None:
    path = a_file(data, root)
    at, mask = a_place(data, path), data.draw(st.integers(1, 255), "mask")
    old = path.read_bytes()[at : at + 1]
    patch(path, at, bytes(byte ^ mask for byte in old))


def write_a_word(data: Draw, root: Path) -> None:
    path = a_file(data, root)
    code = data.draw(st.sampled_from(("<B", "<H", "<I", "<Q", ">H", ">I", ">Q")), "as")
    word = data.draw(st.sampled_from(WIDE_WORDS), "word") % (1 << 8 * struct.calcsize(code))
    patch(path, a_place(data, path), struct.pack(code, word))


def write_noise(data: Draw, root: Path) -> None:
    path = a_file(data, root)
    patch(path, a_place(data, path), data.draw(st.binary(min_size=1, max_size=64), "noise"))


def cut(data: Draw, root: Path) -> None:
    path = a_file(data, root)
    os.truncate(path, a_place(data, path))


def extend(data: Draw, root: Path) -> None:
    path = a_file(data, root)
    with path.open("ab") as file:
        file.write(data.draw(st.binary(min_size=1, max_size=300), "more"))


def zero(data: Draw, root: Path) -> None:
    path = a_file(data, root)
    patch(path, a_place(data, path), bytes(data.draw(st.sampled_from((4, 100, 4096, 1 << 20)))))


def delete(data: Draw, root: Path) -> None:
    a_file(data, root).unlink()


def swap_files(data: Draw, root: Path) -> None:
    one, other = a_file(data, root), a_file(data, root)
    held = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(held)


def swap_folders(data: Draw, root: Path) -> None:
    folder = st.sampled_from(folders_of(root))
    one, other, aside = data.draw(folder), data.draw(folder), root / "aside"
    if one != other:
        one.rename(aside)
        other.rename(one)
        aside.rename(other)


def change_kind(data: Draw, root: Path) -> None:
    path = a_file(data, root)
    KINDS[data.draw(st.sampled_from(sorted(KINDS)), "kind")](path)


def rename(data: Draw, root: Path) -> None:
    paths = sorted([*files_of(root), *folders_of(root)])
    path = data.draw(st.sampled_from(paths), "path")
    name = data.draw(st.sampled_from((b"\xff\xfe", b"a\nb", b"..\\", b"-journal", b"x" * 255)))
    os.rename(os.fsencode(path), os.path.join(os.fsencode(path.parent), name))  # noqa: PTH104,PTH118


def _replace(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


KINDS: Mapping[str, Callable[[Path], None]] = {
    "a directory": _replace(Path.mkdir),
    "a FIFO": _replace(os.mkfifo),
    "a dangling symlink": _replace(lambda path: path.symlink_to("nowhere")),
    "a symlink to itself": _replace(lambda path: path.symlink_to(path)),
    "a symlink to endless zeros": _replace(lambda path: path.symlink_to("/dev/zero")),
    "a symlink to a directory": _replace(lambda path: path.symlink_to("/")),
    "empty": _replace(Path.touch),
    "a sparse tebibyte": _replace(lambda path: _sparse(path)),
    "itself and a sparse tebibyte": lambda path: os.truncate(path, TEBIBYTE),
}


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, TEBIBYTE)


VANDALS = (
    flip_bits,
    flip_bits,
    write_a_word,
    write_a_word,
    write_a_word,
    write_noise,
    cut,
    cut,
    extend,
    zero,
    delete,
    swap_files,
    swap_folders,
    change_kind,
    rename,
)


def audit_vandalised(data: Draw, bases: Bases, names: Sequence[str], root: Path) -> None:
    bases.copy(data.draw(st.sampled_from(names), "base"), root)
    for vandal in data.draw(st.lists(st.sampled_from(VANDALS), min_size=1, max_size=3), "vandals"):
        if files_of(root) and folders_of(root):
            vandal(data, root)
    audited(root)
    shutil.rmtree(root)


@given(data=st.data())
@settings(max_examples=3 * settings().max_examples)
def test_whatever_happens_to_its_bytes_a_store_gets_an_answer_and_stays_as_it_is(
    data: Draw, bases: Bases, fresh: Callable[[], Path]
) -> None:
    audit_vandalised(data, bases, BASES, fresh())


@given(data=st.data())
@settings(max_examples=max(10, settings().max_examples // 10))
def test_whatever_happens_to_a_journal_it_is_neither_rolled_back_nor_in_the_way(
    data: Draw, bases: Bases, fresh: Callable[[], Path]
) -> None:
    audit_vandalised(data, bases, JOURNALS, fresh())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_file_may_be_anything(kind: str, bases: Bases, fresh: Callable[[], Path]) -> None:
    for path in files_of(bases.pristine(SMALL)):
        root = bases.copy(SMALL, fresh())
        KINDS[kind](root / path.relative_to(bases.pristine(SMALL)))
        answers = audited(root)
        harmless = path.name == "length.bin" and kind in ("empty", "a sparse tebibyte")
        if kind != "itself and a sparse tebibyte" and not harmless:
            assert not is_content(answers["standard"]), path.name


@pytest.mark.parametrize("suffix", ["-journal", "-wal", "-shm"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_file_beside_the_database_may_be_anything(kind: str, suffix: str, store: Path) -> None:
    beside = store / (DATABASE + suffix)
    beside.write_bytes(b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + bytes(600))
    KINDS[kind](beside)
    audited(store)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_segment_folder_may_be_anything(kind: str, store: Path) -> None:
    folder = the_folder(store)
    shutil.rmtree(folder)
    folder.touch()
    KINDS[kind](folder)
    assert not is_content(audited(store)["standard"])


# --- header.bin ---------------------------------------------------------------------------------

#: A change of these changes nothing of what is stored.
HARMLESS = {"capacity", "m", "mult", "ef_construction"}


@pytest.mark.parametrize("field", HEADER_FIELDS)
def test_no_number_in_the_header_is_believed(field: str, bases: Bases, store: Path) -> None:
    path, at = the_folder(store) / "header.bin", HEADER_FIELDS.index(field)
    original = HEADER.unpack(path.read_bytes())
    code = HEADER.format[1 + at]
    for word in WIDE_WORDS:
        raw = (word % (1 << 8 * struct.calcsize("<" + code))).to_bytes(8, "little")
        fields = list(original)
        (fields[at],) = struct.unpack_from("<" + code, raw)
        path.write_bytes(HEADER.pack(*fields))
        answer = audited(store)["standard"]
        if fields[at] != original[at] and field not in HARMLESS:
            assert statuses(answer) == {"corrupt"}, (field, word)


# --- link_lists.bin -----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 68 * 1000, 1 << 31, 68 * ((1 << 32) // 68), (1 << 32) - 1])
@pytest.mark.parametrize("size", [None, TEBIBYTE])
def test_no_length_in_a_link_list_is_believed(length: int, size: int | None, store: Path) -> None:
    path = the_folder(store) / "link_lists.bin"
    patch(path, 0, struct.pack("<I", length))
    if size is not None:
        os.truncate(path, size)
    assert statuses(audited(store)["standard"]) == {"corrupt"}


# --- Hostile id maps ----------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def a_dict(*items: bytes) -> bytes:
    return b"}(" + b"".join(items) + b"u"


def an_id_map(ids: Sequence[bytes], labels: Sequence[bytes], total: bytes) -> bytes:
    """What 1.x writes, of opcodes that make ids and labels."""
    there = zip(ids, labels, strict=True)
    back = zip(labels, ids, strict=True)
    state = a_dict(
        text("dimensionality") + b"N",
        text("total_elements_added") + total,
        text("max_seq_id") + b"N",
        text("id_to_label") + a_dict(*(a + b for a, b in there)),
        text("label_to_id") + a_dict(*(a + b for a, b in back)),
        text("id_to_seq_id") + b"}",
    )
    return b"\x80\x03" + state + b"."


def with_labels(*labels: bytes) -> bytes:
    return an_id_map([text(f"id{n}") for n in range(len(labels))], labels, number(len(labels)))


def with_ids(*ids: bytes) -> bytes:
    return an_id_map(ids, [number(n + 1) for n in range(len(ids))], number(len(ids)))


def with_total(total: bytes) -> bytes:
    return an_id_map([text("a")], [number(1)], total)


MANY = 100_000
SHELL = b"echo executed > executed"
CALLS: Mapping[str, bytes] = {
    "GLOBAL REDUCE": b"\x80\x03cos\nsystem\n" + text(SHELL) + b"\x85R.",
    "STACK_GLOBAL REDUCE": b"\x80\x04"
    + text("os")
    + text("system")
    + b"\x93"
    + text(SHELL)
    + b"\x85R.",
    "INST": b"(" + text(SHELL) + b"ios\nsystem\n.",
    "OBJ": b"(cos\nsystem\n" + text(SHELL) + b"o.",
    "NEWOBJ": b"\x80\x03csubprocess\nPopen\n" + text("true") + b"\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n" + text("true") + b"\x85}\x92.",
    "BUILD": b"\x80\x03cos\nenviron\n}(" + text("a") + text("b") + b"ub.",
    "another class": b"\x80\x03cchromadb.segment.impl.vector.local_persistent_hnsw\n"
    b"PersistentLocalHnswSegment\n)\x81}b.",
    "a longer name": b"\x80\x03cchromadb.segment.impl.vector.local_persistent_hnsw\n"
    b"PersistentData.load_from_file\n" + text("/etc/passwd") + b"\x85R.",
    "EXT": b"\x80\x02\x82\x01.",
    "PERSID": b"Pexecuted\n.",
    "BINPERSID": b"\x80\x03" + text("executed") + b"Q.",
    "as an id": with_ids(b"cos\nsystem\n" + text(SHELL) + b"\x85R"),
    "as a label": with_labels(b"cos\nsystem\n" + text(SHELL) + b"\x85R"),
    "after the end": with_labels(number(1)) + b"cos\nsystem\n" + text(SHELL) + b"\x85R.",
}
BOMBS: Mapping[str, bytes] = {
    "nothing": b"",
    "STOP": b".",
    "no PROTO": with_labels(number(1))[2:],
    "PROTO 255": b"\x80\xff" + with_labels(number(1))[2:],
    "PROTO twice": b"\x80\x03" + with_labels(number(1)),
    "LONG_BINPUT": b"\x80\x03}r\xff\xff\xff\x7f.",
    "LONG_BINPUT in an id": with_ids(text("a") + b"r\xff\xff\xff\x7f"),
    "PUT": b"\x80\x03}p2147483647\n.",
    "PUT of many digits": b"\x80\x03}p" + b"9" * MANY + b"\n.",
    "LONG_BINGET": b"\x80\x03j\xff\xff\xff\xff.",
    "BINUNICODE of 4 GiB": b"\x80\x03}(X\xff\xff\xff\xffa",
    "BINUNICODE8 of 8 EiB": b"\x80\x04}(\x8d" + struct.pack("<Q", 1 << 63) + b"a",
    "BINBYTES8 of 16 EiB": b"\x80\x04\x8e" + b"\xff" * 8,
    "BYTEARRAY8 of 16 EiB": b"\x80\x05\x96" + b"\xff" * 8,
    "LONG4 of 2 GiB": b"\x80\x03\x8b\xff\xff\xff\x7f\x01.",
    "LONG4 of negative length": b"\x80\x03\x8b\xff\xff\xff\xff\x01.",
    "LONG4 that is long": with_total(b"\x8b" + struct.pack("<i", MANY) + b"\x7f" * MANY),
    "INT of many digits": with_total(b"I" + b"9" * MANY + b"\n"),
    "LONG of many digits": with_total(b"L" + b"9" * MANY + b"L\n"),
    "FLOAT of many digits": with_total(b"F" + b"9" * MANY + b"\n"),
    "a line without end": b"\x80\x03c" + b"a" * MANY,
    "FRAME of 16 EiB": b"\x80\x04\x95" + b"\xff" * 8 + b"}.",
    "frames within frames": b"\x80\x04" + (b"\x95" + bytes(8)) * 50_000 + b"}.",
    "nested lists": b"\x80\x03" + b"]" * MANY + b"a" * (MANY - 1) + b".",
    "nested tuples": b"\x80\x03)" + b"\x85" * MANY + b".",
    "nested dicts": b"\x80\x03" + b"}X\x01\x00\x00\x00k" * MANY + b"s" * MANY + b".",
    "nested maps": b"\x80\x03" + (b"}(" + text("id_to_label")) * 50_000,
    "marks": b"\x80\x03}" + b"(" * MANY + b"u" * MANY + b".",
    "empty dicts": b"\x80\x03" + b"}" * MANY + b".",
    "doublings by the memo": b"\x80\x04)" + b"\x94h\x00h\x00\x86" * MANY + b".",
    "doublings by DUP": b"\x80\x03)" + b"2\x86" * MANY + b".",
    "memos without use": b"\x80\x04}" + b"\x94" * MANY + b".",
    "gets of one long id": b"\x80\x04}("
    + text("id_to_label")
    + b"}("
    + text("a" * MANY)
    + b"\x94K\x01"
    + b"h\x00K\x01" * MANY
    + b"uu.",
    "sets of one key": b"\x80\x03}" + (text("id_to_label") + b"}s") * 50_000 + b".",
    "many batches": b"\x80\x03}(" + text("id_to_label") + b"}" + b"(u" * MANY + b"u.",
    "POP to nothing": b"\x80\x03" + b"0" * MANY,
    "POP_MARK": b"\x80\x03" + b"(1" * MANY + b".",
    "NEXT_BUFFER": b"\x80\x05\x97\x98.",
    "not a dict": b"\x80\x03].",
    "one dict for everything": b"\x80\x04}("
    + text("id_to_label")
    + b"}\x94"
    + text("label_to_id")
    + b"h\x00u.",
    "itself": b"\x80\x04}\x94(" + text("id_to_label") + b"h\x00u.",
    "duplicate ids": with_ids(text("a"), text("a")),
    "duplicate labels": with_labels(number(1), number(1)),
    "ids that are no UTF-8": with_ids(text(b"\xff\xfe"), text(b"\xed\xa0\x80"), text(b"\xc0\x80")),
    "ids that are numbers": with_ids(number(7), number(8)),
    "ids that are bytes": with_ids(b"C\x01a", b"B\x01\x00\x00\x00b"),
    "ids that are None": with_ids(b"N"),
    "labels that are text": with_labels(text("1")),
    "labels that are floats": with_labels(b"G" + struct.pack(">d", 1.0), b"F1.0\n"),
    "labels that are bools": with_labels(b"\x88", b"\x89"),
    "label 0": with_labels(number(0)),
    "label -1": with_labels(number(-1)),
    "label 2**31": with_labels(number(1 << 31)),
    "label 2**32": with_labels(number(1 << 32)),
    "label 2**63": with_labels(number(1 << 63)),
    "label 2**64": with_labels(number(1 << 64)),
    "label 2**2000": with_labels(number(1 << 2000)),
    "total -1": with_total(number(-1)),
    "total 2**63": with_total(number(1 << 63)),
    "total 2**2000": with_total(number(1 << 2000)),
    "total None": with_total(b"N"),
}


def traced(data: bytes) -> tuple[IdMap, int]:
    """The decoded id map, and the most memory it took."""
    tracemalloc.start()
    try:
        id_map = decode_id_map(data)
        return id_map, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", sorted(CALLS))
def test_nothing_in_an_id_map_is_executed(
    name: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (the_folder(store) / ID_MAP).write_bytes(CALLS[name])
    imported, children = set(sys.modules), os.times().children_user
    with bounded():
        assert decode_id_map(CALLS[name]).problem is not None
    answer = audited(store)["standard"]
    assert statuses(answer) == {"corrupt"}
    assert list(tmp_path.iterdir()) == []
    assert not {name for name in set(sys.modules) - imported if name.startswith("chromadb")}
    assert os.times().children_user == children


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_no_id_map_is_a_bomb(name: str, store: Path) -> None:
    with bounded():
        _, peak = traced(BOMBS[name])
    assert peak <= ID_MAP_MULTIPLE * len(BOMBS[name]) + SLACK
    (the_folder(store) / ID_MAP).write_bytes(BOMBS[name])
    assert statuses(audited(store)["standard"]) == {"corrupt"}


@pytest.mark.parametrize("prefix", [b"\x80\x03", b"\x80\x03}(", b"\x80\x03}(X\x01\x00\x00\x00a"])
def test_no_opcode_costs_more_than_a_small_multiple_of_the_file(prefix: bytes) -> None:
    size = (1 << 20) if THOROUGH else (1 << 16)
    dear = {}
    for opcode in range(256):
        data = prefix + bytes([opcode]) * size
        with bounded():
            id_map, peak = traced(data)
        assert id_map.problem is not None
        if peak > ID_MAP_MULTIPLE * size + SLACK:
            dear[opcode] = round(peak / size, 1)
    assert dear == {}


@pytest.mark.parametrize("opcode", [b"u", b"(", b"}", b"\x94", b"h\x00", b"N", b"]a"])
def test_time_grows_no_faster_than_the_file(opcode: bytes) -> None:
    def seconds(size: int) -> float:
        data = b"\x80\x04}(" + opcode * (size // len(opcode))
        started = time.process_time()
        decode_id_map(data)
        return time.process_time() - started

    small = max(min(seconds(1 << 16) for _ in range(3)), 0.001)
    assert seconds(1 << 20) < 16 * 4 * small + 0.5


@pytest.mark.parametrize("name", ["0.4.24-absent-ids", "0.6.3-absent-ids", "1.5.9-absent-ids"])
def test_an_id_map_cut_at_any_byte_yields_what_was_before_the_cut(name: str, bases: Bases) -> None:
    whole_file = next(bases.pristine(name).rglob(ID_MAP)).read_bytes()
    whole = decode_id_map(whole_file)
    assert whole.problem is None
    ids, labels = pairs_of(whole.id_to_label), pairs_of(whole.label_to_id)
    found = 0
    for size in range(len(whole_file)):
        part = decode_id_map(whole_file[:size])
        assert part.problem is not None, size
        some, back = pairs_of(part.id_to_label), pairs_of(part.label_to_id)
        assert some == ids[: len(some)], size
        assert back == labels[: len(back)], size
        assert len(some) >= found, "a longer file tells less"
        found = len(some)
    assert found == len(ids)


def pairs_of(column: Pairs) -> list[tuple[bytes, int]]:
    return list(zip(column.ids, column.labels.tolist(), strict=True))


# --- Hostile databases --------------------------------------------------------------------------

TABLES = (
    "collections",
    "collection_metadata",
    "databases",
    "embeddings",
    "embeddings_queue",
    "embeddings_queue_config",
    "max_seq_id",
    "migrations",
    "segment_metadata",
    "segments",
)
#: A verdict needs nothing that is in these.
UNJUDGED = ("collection_metadata", "databases", "embeddings_queue_config", "segment_metadata")
#: What Chroma keeps as text or number, set to a value of another kind.
COLUMNS = (
    ("collections", "id"),
    ("collections", "name"),
    ("collections", "dimension"),
    ("collections", "database_id"),
    ("collections", "config_json_str"),
    ("collections", "schema_str"),
    ("databases", "name"),
    ("databases", "tenant_id"),
    ("embeddings", "segment_id"),
    ("embeddings", "embedding_id"),
    ("embeddings", "seq_id"),
    ("embeddings_queue", "operation"),
    ("embeddings_queue", "topic"),
    ("embeddings_queue", "id"),
    ("embeddings_queue", "vector"),
    ("embeddings_queue", "encoding"),
    ("embeddings_queue", "metadata"),
    ("embeddings_queue_config", "config_json_str"),
    ("max_seq_id", "segment_id"),
    ("max_seq_id", "seq_id"),
    ("migrations", "dir"),
    ("migrations", "version"),
    ("segments", "id"),
    ("segments", "type"),
    ("segments", "scope"),
    ("segments", "collection"),
)
VALUES: Mapping[str, object] = {
    "NULL": None,
    "a negative number": -1,
    "a number": 1 << 62,
    "the largest number": (1 << 63) - 1,
    "a real": 1e300,
    "infinity": float("inf"),
    "empty text": "",
    "text with NUL and newline": "a\0b\nc\x1b[31m\u202e",
    "a path": "../../../../etc",
    "much text": "x" * (1 << 18),
    "an empty blob": b"",
    "a blob": b"\xff\xfe\x00",
    "much blob": bytes(1 << 18),
    "deep JSON": "[" * 200_000,
    "JSON of a huge number": '{"hnsw":' + "9" * 100_000 + "}",
}


@contextmanager
def database(store: Path) -> Iterator[sqlite3.Connection]:
    """A connection that may damage the schema."""
    with closing(sqlite3.connect(store / DATABASE, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        yield connection


def columns_of(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_may_be_an_endless_view(table: str, store: Path) -> None:
    with database(store) as connection:
        names = columns_of(connection, table)
        connection.execute(f"DROP TABLE {table}")
        connection.execute(
            f"CREATE VIEW {table} AS"
            " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
            f" SELECT {', '.join(f'i AS {name}' for name in names)} FROM n"
        )
    assert not is_content(audited(store)["standard"]) or table in UNJUDGED


@pytest.mark.parametrize("table", TABLES)
def test_a_table_may_be_gone_or_have_other_columns(table: str, store: Path) -> None:
    with database(store) as connection:
        connection.execute(f"DROP TABLE {table}")
    audited(store)
    with database(store) as connection:
        connection.execute(f"CREATE TABLE {table} (other)")
        connection.execute(f"INSERT INTO {table} VALUES (1)")
    audited(store)


@pytest.mark.parametrize(
    ("table", "column"),
    [("embeddings", "embedding_id"), ("collections", "name"), ("embeddings_queue", "vector")],
)
def test_a_column_that_computes_gigabytes_is_not_computed(
    table: str, column: str, store: Path
) -> None:
    """A generated column takes no room in the file and any amount of memory to read."""
    with database(store) as connection:
        names = columns_of(connection, table)
        connection.execute(f"ALTER TABLE {table} RENAME TO old")
        declared = ", ".join(name for name in names if name != column)
        connection.execute(
            f"CREATE TABLE {table} ({declared}, {column} GENERATED ALWAYS AS"
            " (hex(zeroblob(400000000))) VIRTUAL)"
        )
        connection.execute(f"INSERT INTO {table} SELECT {declared} FROM old")
    audited(store)


@pytest.mark.parametrize("value", sorted(VALUES))
def test_a_column_may_hold_any_kind_of_value(
    value: str, bases: Bases, fresh: Callable[[], Path]
) -> None:
    for table, column in COLUMNS:
        root = bases.copy(SMALL, fresh())
        with database(root) as connection:
            connection.execute(f"DROP TRIGGER IF EXISTS {table}_trigger")
            _loosen(connection, table)
            connection.execute(f"UPDATE {table} SET {column} = ?", [VALUES[value]])
        audited(root)
        shutil.rmtree(root)


def _loosen(connection: sqlite3.Connection, table: str) -> None:
    """Make a table one without types and constraints."""
    names = ", ".join(columns_of(connection, table))
    connection.execute(f"CREATE TABLE loose ({names})")
    connection.execute(f"INSERT INTO loose SELECT {names} FROM {table}")
    connection.execute(f"DROP TABLE {table}")
    connection.execute(f"ALTER TABLE loose RENAME TO {table}")


@pytest.mark.parametrize("table", ["embeddings_queue", "embeddings", "sqlite_master"])
def test_a_page_may_be_its_own_child(table: str, bases: Bases, fresh: Callable[[], Path]) -> None:
    root = bases.copy("0.4.24-churn-ip", fresh())
    with database(root) as connection:
        find = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        found = connection.execute(find, [table]).fetchone()
    page = found[0] if found else 1
    head = (page - 1) * 4096 + (100 if page == 1 else 0)
    content = bytearray((root / DATABASE).read_bytes())
    own = struct.pack(">I", page)
    assert content[head] == 5, "no interior page"
    cells = struct.unpack_from(">H", content, head + 3)[0]
    content[head + 8 : head + 12] = own
    for cell in range(cells):
        (at,) = struct.unpack_from(">H", content, head + 12 + 2 * cell)
        content[head - head % 4096 + at : head - head % 4096 + at + 4] = own
    (root / DATABASE).write_bytes(content)
    assert not is_content(audited(root)["standard"])


def test_an_overflow_chain_may_run_in_circles(store: Path) -> None:
    with database(store) as connection:
        connection.execute("UPDATE collections SET name = ?", ["needle" + "x" * 100_000])
    content = bytearray((store / DATABASE).read_bytes())
    pages = [
        at for at in range(0, len(content), 4096) if content[at + 4 : at + 4096] == b"x" * 4092
    ]
    for at in pages:
        content[at : at + 4] = struct.pack(">I", at // 4096 + 1)
    assert pages
    (store / DATABASE).write_bytes(content)
    audited(store)


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO migrations SELECT dir, 99, filename, sql, hash FROM migrations LIMIT 1",
        "UPDATE migrations SET version = -version",
        "DELETE FROM migrations",
        "UPDATE migrations SET dir = 'other' WHERE version = 1 AND dir = 'sysdb'",
        "INSERT INTO migrations SELECT 'new', version, filename, sql, hash FROM migrations LIMIT 1",
        "INSERT INTO segments SELECT 'x' || id, type, scope, collection FROM segments",
        "UPDATE segments SET scope = 'VECTOR'",
        "UPDATE segments SET collection = ''",
        "DELETE FROM segments",
        "DELETE FROM collections",
        "ALTER TABLE collections ADD COLUMN more TEXT",
        "ALTER TABLE embeddings RENAME COLUMN embedding_id TO other",
        "UPDATE sqlite_master SET sql = 'CREATE TABLE embeddings(' WHERE name = 'embeddings'",
        "UPDATE sqlite_master SET rootpage = 1 WHERE name = 'embeddings_queue'",
        "UPDATE sqlite_master SET rootpage = 2000000000 WHERE name = 'embeddings'",
        "UPDATE sqlite_master SET sql = replace(sql, 'TEXT', 'TEXT COLLATE nowhere')",
        "UPDATE sqlite_master SET name = 'sqlite_x' WHERE name = 'segments'",
        "CREATE TRIGGER t AFTER INSERT ON segments BEGIN SELECT RAISE(ABORT, 'x'); END",
        "CREATE INDEX hostile ON embeddings(hex(zeroblob(length(embedding_id) * 10000)))",
        "PRAGMA user_version = 2147483647",
        "PRAGMA application_id = 2147483647",
    ],
)
def test_a_schema_may_be_of_the_future_or_of_nobody(change: str, store: Path) -> None:
    with database(store) as connection:
        connection.execute(change)
    audited(store)


@pytest.mark.parametrize("pragma", ["page_size = 512", "page_size = 65536", "auto_vacuum = FULL"])
def test_any_page_size_is_as_good_as_chromas(pragma: str, store: Path) -> None:
    with database(store) as connection:
        connection.execute(f"PRAGMA {pragma}")
        connection.execute("VACUUM")
    answers = audited(store)
    assert is_content(answers["standard"])
    assert is_content(answers["probe"])


def test_a_database_in_utf_16_gets_an_answer(store: Path) -> None:
    other = store / "utf16"
    with database(store) as source, closing(sqlite3.connect(other)) as target:
        target.execute("PRAGMA encoding = 'UTF-16be'")
        target.execute("PRAGMA writable_schema = ON")
        for name, sql in source.execute("SELECT name, sql FROM sqlite_master WHERE sql NOTNULL"):
            if not name.startswith(("sqlite_", "embedding_fulltext")):
                target.execute(sql)
        for table in TABLES:
            places = ", ".join("?" * len(columns_of(source, table)))
            rows = source.execute(f"SELECT * FROM {table}").fetchall()
            target.executemany(f"INSERT INTO {table} VALUES ({places})", rows)
        target.commit()
    other.replace(store / DATABASE)
    audited(store)


# --- Names --------------------------------------------------------------------------------------

NASTY = (
    "",
    "a\0b",
    "a\nb",
    "\x1b[2J\x1b]0;title\x07",
    "\u202eevil\u2066",
    "\x85\u2028\u2029",
    "\ud7ff\ue000\uffff\U0010ffff",
    "%s{0}$(id)`id`",
    "<script>]]>&amp;",
    "x" * 100_000,
)


def nasty_store(path: Path) -> Path:
    """Records missing and phantom, every one of them with a name that somebody might print."""
    collections = [
        CollectionSpec(
            name=f"{number}{name}"[:1000],
            tenant=name[:1000],
            database=name[:1000],
            segment=Segment(dimension=2, ids=[f"in{name}" for name in NASTY]),
            records=[(f"out{name}", n + 1) for n, name in enumerate(NASTY)],
            wal=[WalRow(seq_id=1000 + number, op=Op.DELETE, id=name)],
            watermark=100,
            metadata_watermark=100,
        )
        for number, name in enumerate(NASTY)
    ]
    write_store(path, collections)
    return path


def test_names_are_printed_so_that_nothing_happens(fresh: Callable[[], Path]) -> None:
    root = nasty_store(fresh())
    report = audited(root)["standard"]
    assert statuses(report) == {"diverged"}
    for arguments in (["--all-ids"], ["--format", "json"], ["--level", "probe"]):
        done = run("audit", root, *arguments)
        assert done.returncode == (0 if "probe" in arguments else 1)
        assert (done.stdout + done.stderr).replace("\n", "").isprintable()


def test_names_that_are_no_text_are_printed_too(store: Path) -> None:
    raw = b"\xff\xfe\xed\xa0\x80"
    with database(store) as connection:
        for table, column in (("collections", "name"), ("embeddings", "embedding_id")):
            connection.execute(
                f"UPDATE OR IGNORE {table} SET {column} = CAST(CAST(? AS BLOB) AS TEXT)", [raw]
            )
    os.mkdir(os.path.join(os.fsencode(store), raw))  # noqa: PTH102,PTH118
    audited(store)
    done = run("audit", store, "--all-ids")
    assert done.returncode == 1
    assert (done.stdout + done.stderr).replace("\n", "").isprintable()


def test_thousands_of_folders_that_nobody_claims_are_no_burden(store: Path) -> None:
    for n in range(3000):
        (store / f"{n:08x}-0000-4000-8000-000000000000").mkdir()
    audited(store)
