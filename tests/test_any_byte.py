"""Any byte of any file changed, cut or swapped: never a traceback, a hang, a write, or memory that
the file does not justify."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import snapshot, unpack

import hnswcheck
from hnswcheck.disk.idmap import decode_id_map

BASES = ("1.5.9-churn-cosine", "0.6.3-churn-l2", "0.4.24-churn-ip")
SECONDS = 30
PICKLE = "index_metadata.pickle"
#: Every so many bytes an id map is cut: coprime to the size of any pair.
STEP = 7

#: A change to a file, given a position between 0 and 1 and a number below 2**64.
Mutation = Callable[[Path, float, int], None]


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def expired(signum: int, frame: FrameType | None) -> None:
        raise AssertionError(f"took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def flip(path: Path, position: float, number: int) -> None:
    data = bytearray(path.read_bytes())
    if data:
        data[int(position * (len(data) - 1))] ^= 1 + number % 255
    path.write_bytes(data)


def word(path: Path, position: float, number: int) -> None:
    data = bytearray(path.read_bytes())
    at = int(position * len(data)) // 4 * 4
    size = 4 if number % 2 else 8
    data[at : at + size] = number.to_bytes(8, "little")[:size]
    path.write_bytes(data)


def cut(path: Path, position: float, number: int) -> None:
    os.truncate(path, int(position * path.stat().st_size))


def extend(path: Path, position: float, number: int) -> None:
    with path.open("ab") as file:
        file.write(number.to_bytes(8, "little") * (1 + int(position * 1000)))


def zero(path: Path, position: float, number: int) -> None:
    data = bytearray(path.read_bytes())
    at = int(position * len(data))
    size = min(number % 4096, len(data) - at)
    data[at : at + size] = bytes(size)
    path.write_bytes(data)


def swap(path: Path, position: float, number: int) -> None:
    others = sorted(p for p in path.parent.iterdir() if p.is_file() and p != path)
    if others:
        other = others[number % len(others)]
        mine, theirs = path.read_bytes(), other.read_bytes()
        path.write_bytes(theirs)
        other.write_bytes(mine)


def remove(path: Path, position: float, number: int) -> None:
    path.unlink()


def make_directory(path: Path, position: float, number: int) -> None:
    path.unlink()
    path.mkdir()


def make_symlink(path: Path, position: float, number: int) -> None:
    path.unlink()
    path.symlink_to("/dev/null" if number % 2 else "nowhere")


MUTATIONS: tuple[Mutation, ...] = (
    flip, word, cut, extend, zero, swap, remove, make_directory, make_symlink,
)  # fmt: skip
#: Bytes are where the variety is.
WEIGHTED = (flip, flip, flip, word, word, word, cut, zero, *MUTATIONS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bases")
    return {name: unpack(name, place) for name in BASES}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(BASES),
    st.lists(
        st.tuples(
            st.integers(0, 50),
            st.sampled_from(WEIGHTED),
            st.floats(0, 1),
            st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]),
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_no_change_to_the_files_raises_hangs_or_makes_an_audit_write(
    bases: dict[str, Path], name: str, changes: list[tuple[int, Mutation, float, int]]
) -> None:
    with TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        shutil.copytree(bases[name], store)
        for which, mutate, position, number in changes:
            files = sorted(p for p in store.rglob("*") if p.is_file() and not p.is_symlink())
            if files:
                mutate(files[which % len(files)], position, number)
        before = snapshot(store)
        for level in hnswcheck.Level:
            with time_limit(SECONDS), suppress(hnswcheck.HnswcheckError):
                report = hnswcheck.audit(store, level)
                assert report.to_json()
        assert snapshot(store) == before


@pytest.mark.parametrize("file", ["header.bin", "data_level0.bin", "link_lists.bin", PICKLE])
def test_a_file_that_claims_a_terabyte_costs_neither_time_nor_memory(
    file: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    shutil.copytree(bases[BASES[0]], store)
    (path,) = store.glob(f"*/{file}")
    try:
        os.truncate(path, 1 << 40)
    except OSError as error:
        pytest.skip(f"no sparse files here: {error}")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

    started = time.monotonic()
    command = [sys.executable, "-m", "hnswcheck", "audit", str(store)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limited, env=environment, timeout=120
    )
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)
    assert time.monotonic() - started < 60


# --- Id maps ------------------------------------------------------------------------------------


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed-by-the-id-map",)


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "stop": b"\x80\x03.",
    "call": pickle.dumps({"id_to_label": Trap()}, 3),
    "class": b"\x80\x05\x8c\x02os\x8c\x06system\x93)\x81}(ub.",
    "put": b"\x80\x03}r\xff\xff\xff\x7f(u.",
    "huge string": b"\x80\x03}(X\xff\xff\xff\xff",
    "huge frame": b"\x80\x05\x95" + b"\xff" * 8 + b"}(u.",
    "huge int": b"\x80\x03}(X\x01\x00\x00\x00a\x8a\xff" + b"\x7f" * 255 + b"u.",
    "get of nothing": b"\x80\x05}(j\xff\xff\xff\x7fK\x01u.",
    "get of itself": b"\x80\x05h\x00\x94.",
    "nested": b"\x80\x03" + b"}(X\x01\x00\x00\x00a" * 10_000,
    "strings without end": b"\x80\x03}(" + b"\x8c\x00" * 50_000,
    "numbers without end": b"\x80\x03}(" + b"K\x00" * 50_000,
    "binget pairs": b"\x80\x03" + b"J\x00\x00\x00\x00j\x00\x00\x00\x00" * 100_000,
    "a genuine list": pickle.dumps([1, 2, 3], 3),
    "text": b"PK\x03\x04 not a pickle",
}
HOSTILE |= {f"opcode {op:#04x}": b"\x80\x03" + bytes([op]) * 20_000 for op in range(256)}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_id_map_is_a_problem_and_costs_a_small_multiple_of_itself(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracemalloc.start()
    try:
        with time_limit(SECONDS):
            id_map = decode_id_map(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert id_map.problem is not None
    assert peak < 40 * len(data) + (8 << 20)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BASES)
def test_a_cut_id_map_yields_what_is_before_the_cut(name: str, bases: dict[str, Path]) -> None:
    (path, *_) = sorted(bases[name].glob(f"*/{PICKLE}"))
    data = path.read_bytes()
    whole = decode_id_map(data)
    assert whole.problem is None
    pairs = list(zip(whole.id_to_label.ids, whole.id_to_label.labels.tolist(), strict=True))
    assert pairs
    seen = 0
    for size in range(0, len(data), STEP):
        part = decode_id_map(data[:size])
        assert part.problem is not None
        found = list(zip(part.id_to_label.ids, part.id_to_label.labels.tolist(), strict=True))
        assert found == pairs[: len(found)]
        assert len(found) >= seen
        seen = len(found)
    assert seen == len(pairs)
