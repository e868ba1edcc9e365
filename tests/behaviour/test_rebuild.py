"""A rebuilt segment is one that Chroma goes on with: the real engines judge."""

from __future__ import annotations

import io
import itertools
import pickle
import pickletools
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np
import numpy.typing as npt
import pytest
from environments import TIME_LIMIT, in_chroma, python_of
from in_chroma import identifiers
from oracle import Oracle
from pickles import dumps_python, dumps_rust
from reader import Segment, collections
from stores import environment

import hnswcheck
from hnswcheck.errors import ActionFailed, EngineMissing, UsageError, VectorsNotFinite
from hnswcheck.formats.hnswlib_file import read_header, split_index
from hnswcheck.formats.id_map import decode_id_map
from hnswcheck.formats.id_map_writer import write_dict, write_instance
from hnswcheck.formats.segment_files import INDEX_FILES
from hnswcheck.formats.strings import Strings
from hnswcheck.repairing.build_index import build_segment
from hnswcheck.repairing.index_settings import IndexSettings, estimate
from hnswcheck.store.releases import release_for

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

HERE = "1.5.9"
VERSIONS = (HERE, "1.0.20", "0.6.3", "0.5.23", "0.4.24")
SPACES = ("l2", "cosine", "ip")
#: Of float32, for what was divided and multiplied again.
ROUNDING = 3e-7


def line_of(version: str) -> str:
    return release_for(version).line


def fewest(version: str) -> int:
    """0.4 flushes only after three additions."""
    return 3 if version.startswith("0.4") else 1


@dataclass(frozen=True)
class Data:
    """A collection to be: its settings and vectors, and how it is searched."""

    space: str
    vectors: Floats
    search_ef: int = 100
    results: int = 10
    searches: int = 100

    @property
    def name(self) -> str:
        count, dimension = self.vectors.shape
        return f"{self.space}-{count}-{dimension}"

    @property
    def queries(self) -> Floats:
        return self.vectors[:: max(1, len(self.vectors) // self.searches)]

    def true_distances(self) -> Doubles:
        """float64 (queries, n)."""
        one, other = self.queries.astype(np.float64), self.vectors.astype(np.float64)
        if self.space == "cosine":
            one = one / np.linalg.norm(one, axis=1)[:, None]
            other = other / np.linalg.norm(other, axis=1)[:, None]
        distances: Doubles = 1 - one @ other.T
        if self.space == "l2":
            distances = (one**2).sum(1)[:, None] + (other**2).sum(1) + 2 * (distances - 1)
        return distances


def data(space: str, count: int, dimension: int, **settings: int) -> Data:
    source = np.random.default_rng(count * 1000 + dimension)
    return Data(space, source.normal(size=(count, dimension)).astype(np.float32), **settings)


class Chroma:
    """One version of chromadb, and the stores it is asked to write and read."""

    def __init__(self, version: str, scratch: Path) -> None:
        self.version, self.scratch = version, scratch
        self.python = python_of(version)
        self.numbers = itertools.count()

    def write(self, store: Path, contents: Sequence[Data]) -> None:
        in_chroma("write", store, [self.job(each) for each in contents], self.python)

    def read(self, store: Path, contents: Sequence[Data]) -> list[dict[str, Any]]:
        """Answers of a fresh process, on a copy."""
        copy = self.scratch / f"copy-{next(self.numbers)}"
        shutil.copytree(store, copy)
        jobs = [self.job(each) for each in contents]
        in_chroma("search", copy, jobs, self.python)
        return [dict(np.load(job["answers"])) for job in jobs]

    def job(self, each: Data) -> dict[str, Any]:
        path = self.scratch / f"{each.name}-{next(self.numbers)}"
        np.save(f"{path}.npy", each.vectors)
        np.save(f"{path}-queries.npy", each.queries)
        count, dimension = each.vectors.shape
        return {
            "name": each.name,
            "space": each.space,
            "count": count,
            "dimension": dimension,
            "search_ef": each.search_ef,
            "results": min(count, each.results),
            "vectors": f"{path}.npy",
            "queries": f"{path}-queries.npy",
            "answers": f"{path}.npz",
        }


def rebuild(store: Path, contents: Sequence[Data], version: str, threads: int = 0) -> None:
    """Replace each segment folder by one made of the vectors, and compare what stays the same."""
    found = {stored.key[2]: stored for stored in collections(store)}
    for each in contents:
        folder = store / found[each.name].vector_segment
        old = Segment(folder)
        assert old.id_map is not None
        ids = identifiers(len(each.vectors))
        seq_ids = None
        if line_of(version).startswith("0"):
            seq_ids = np.array([old.id_map["id_to_seq_id"][record] for record in ids])
        new = store / "new"
        build_segment(
            new,
            np.array_split(each.vectors, 3),
            [record.encode() for record in ids],
            IndexSettings(
                space=each.space,
                dimension=each.vectors.shape[1],
                line=line_of(version),
                threads=threads,
            ),
            scratch=store / "scratch",
            seq_ids=seq_ids,
            max_seq_id=old.id_map.get("max_seq_id"),
        )
        made = Segment(new)
        # 1.0 makes room for 10,000 elements at once, which the next Chroma does not grant to few.
        room = min(old.header["capacity"], max(1000, 10 * old.header["count"]))
        expected = {**old.header, "capacity": room}
        assert changed(expected, made.header) <= {"maxlevel", "entry_point"}
        assert made.id_map is not None
        assert list(made.id_map) == list(old.id_map)
        scalars = ("dimensionality", "total_elements_added", "max_seq_id")
        assert [made.id_map.get(n) for n in scalars] == [old.id_map.get(n) for n in scalars]
        assert made.id_map["id_to_seq_id"] == old.id_map["id_to_seq_id"]
        shutil.rmtree(folder)
        new.rename(folder)


def changed(one: Mapping[str, Any], other: Mapping[str, Any]) -> set[str]:
    return {name for name in one if one[name] != other[name]}


def check_answers(each: Data, before: dict[str, Any], after: dict[str, Any]) -> None:
    assert after["count"] == len(each.vectors)
    if each.space == "cosine":
        scale = np.linalg.norm(each.vectors, axis=1)[:, None]
        assert (np.abs(after["stored"] - each.vectors) <= ROUNDING * scale).all()
    else:
        assert after["stored"].tobytes() == each.vectors.tobytes()
    assert after["hits"].shape == before["hits"].shape
    true = each.true_distances()
    given = np.take_along_axis(true, after["hits"], 1)
    assert np.abs(given - after["distances"]).max() <= 1e-4 * max(1.0, np.abs(true).max())
    if each.space != "ip":  # under ip a vector need not be among the nearest of itself
        assert found_itself(true, after) >= found_itself(true, before) - 0.01, each.name


def found_itself(true: Doubles, answers: Mapping[str, Any]) -> float:
    """The share of searches for a vector that found it, or one at the same place."""
    return float((np.take_along_axis(true, answers["hits"], 1).min(1) <= 1e-5).mean())


def recall(each: Data, answers: Mapping[str, Any]) -> float:
    """The share of the nearest that were found; what is as near as they are counts as them."""
    true = each.true_distances()
    k = answers["hits"].shape[1]
    farthest = np.sort(true, axis=1)[:, k - 1 : k] + 1e-6
    return float((np.take_along_axis(true, answers["hits"], 1) <= farthest).mean())


# --- Real engines --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.usefixtures("chroma")
def test_chroma_finds_what_was_rebuilt(version: str, tmp_path: Path) -> None:
    counts = (fewest(version), 3, 1000) if version == HERE else (fewest(version), 1000)
    shapes = [(n, d) for n in counts for d in (1, 8, 384)] + [(5000, 8)]
    contents = [data(space, n, d) for space in SPACES for n, d in shapes]
    if version == HERE:
        contents += [data("l2", 5000, 1), data("ip", 5000, 1), data("cosine", 5000, 384)]
    store = tmp_path / "store"
    chroma = Chroma(version, tmp_path)
    chroma.write(store, contents)
    before = chroma.read(store, contents)
    rebuild(store, contents, version)
    after = chroma.read(store, contents)
    for each, old, new in zip(contents, before, after, strict=True):
        check_answers(each, old, new)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.usefixtures("chroma")
def test_chroma_goes_on_writing(version: str, tmp_path: Path) -> None:
    contents = [data(space, 120, 8) for space in SPACES] + [data("cosine", fewest(version), 8)]
    store = tmp_path / "store"
    chroma = Chroma(version, tmp_path)
    chroma.write(store, contents)
    rebuild(store, contents, version)
    assert_consistent(store, *(["watermark-legacy"] if version.startswith("0.4") else []))
    with closing(Oracle(python_of(version), TIME_LIMIT, tmp_path)) as oracle:
        for each in contents:
            judgement = oracle.judge(store, each.name)
            assert not judgement.broken, str(judgement)
            assert judgement.records == len(each.vectors)


@pytest.mark.usefixtures("chroma")
def test_a_later_chroma_takes_over_what_was_rebuilt_for_an_earlier(tmp_path: Path) -> None:
    contents = [data(space, 1000, 8) for space in SPACES]
    store = tmp_path / "store"
    chroma = Chroma("0.6.3", tmp_path)
    chroma.write(store, contents)
    before = chroma.read(store, contents)
    rebuild(store, contents, "0.6.3")
    chroma = Chroma(HERE, tmp_path)
    after = chroma.read(store, contents)
    for each, old, new in zip(contents, before, after, strict=True):
        check_answers(each, old, new)
    # 1.5.9 calls the space of all such collections l2, and the oracle believes it.
    with closing(Oracle(python_of(HERE), TIME_LIMIT, tmp_path)) as oracle:
        assert not oracle.judge(store, contents[0].name).broken


@pytest.mark.usefixtures("chroma")
def test_recall_is_that_of_chroma(tmp_path: Path) -> None:
    """Searches with few candidates show how good a graph is; two of equal worth differ by 0.01."""
    contents = [data(space, 5000, 32, search_ef=10, searches=500) for space in ("l2", "cosine")]
    store = tmp_path / "store"
    chroma = Chroma(HERE, tmp_path)
    chroma.write(store, contents)
    before = chroma.read(store, contents)
    rebuild(store, contents, HERE)
    after = chroma.read(store, contents)
    old = [recall(each, answers) for each, answers in zip(contents, before, strict=True)]
    new = [recall(each, answers) for each, answers in zip(contents, after, strict=True)]
    assert np.mean(new) >= np.mean(old) - 0.02


@pytest.mark.usefixtures("chroma")
def test_vectors_of_any_length_come_back_under_cosine(tmp_path: Path) -> None:
    each = data("cosine", 40, 8)
    each.vectors[:30] *= np.float32(10) ** np.linspace(-37, 37, 30, dtype=np.float32)[:, None]
    each.vectors[35] = 0
    store = tmp_path / "store"
    chroma = Chroma(HERE, tmp_path)
    chroma.write(store, [each])
    rebuild(store, [each], HERE)
    (answers,) = chroma.read(store, [each])
    scale = np.linalg.norm(each.vectors.astype(np.float64), axis=1)[:, None]
    assert (np.abs(answers["stored"] - each.vectors.astype(np.float64)) <= ROUNDING * scale).all()
    # Nothing is near to the vector that is zero, itself included.
    assert_consistent(store, "searches-miss")


def assert_consistent(store: Path, *expected: str) -> None:
    (report,) = hnswcheck.audit(store, level="deep").stores
    for segment in report.segments:
        assert {found.id for found in segment.findings} <= {"lag", *expected}, segment
    assert not report.findings


BUILD = """
import sys
from pathlib import Path
import numpy
from hnswcheck.repairing.index_settings import IndexSettings
from hnswcheck.repairing.build_index import build_segment
vectors, folder = numpy.load(sys.argv[1]), Path(sys.argv[2])
build_segment(
    folder,
    [vectors],
    [b"%d" % n for n in range(len(vectors))],
    IndexSettings(space=sys.argv[3], dimension=vectors.shape[1], line="0.6", threads=1),
    scratch=folder.with_suffix(".scratch"),
    seq_ids=numpy.arange(len(vectors)),
)
"""


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("version", ["0.6.3", "0.4.24"])
def test_the_fork_builds_the_same(version: str, space: str, tmp_path: Path) -> None:
    """chromadb 0.x installs chroma-hnswlib, under the name of hnswlib."""
    np.save(tmp_path / "vectors.npy", data(space, 2000, 16).vectors)
    for name, python in (("one", python_of(version)), ("other", sys.executable)):
        command = [python, "-c", BUILD, str(tmp_path / "vectors.npy"), str(tmp_path / name), space]
        subprocess.run(command, check=True, env=environment(), timeout=TIME_LIMIT)
    one, other = files_of(tmp_path / "one"), files_of(tmp_path / "other")
    assert one.keys() == other.keys()
    # Distances of floats differ in their last bits from one build of the library to the other.
    assert one["index_metadata.pickle"] == other["index_metadata.pickle"]
    assert one["length.bin"] == other["length.bin"]
    same = Segment(tmp_path / "one"), Segment(tmp_path / "other")
    assert same[0].levels == same[1].levels
    assert (same[0].labels == same[1].labels).all()


# --- What is in the files ------------------------------------------------------------------------


def test_norms_are_by_element_whatever_the_order(tmp_path: Path) -> None:
    """hnswlib's threads overtake each other now and then; here all elements are out of order."""
    count = 500
    order = np.random.default_rng(0).permutation(count)
    index = hnswlib.Index("l2", 4)
    index.init_index(count)
    index.add_items(data("l2", count, 4).vectors, order + 1, num_threads=1)
    index.save_index(str(tmp_path / "saved"))
    header = read_header(tmp_path / "saved")
    norms = np.arange(count, dtype=np.float32)
    targets = {name: io.BytesIO() for name in INDEX_FILES}
    split_index(tmp_path / "saved", header, count, norms, False, targets)
    for name, target in targets.items():
        (tmp_path / name).write_bytes(target.getvalue())
    made = Segment(tmp_path)
    assert made.labels.tolist() == (order + 1).tolist()
    assert np.frombuffer(made.read("length.bin"), np.float32).tolist() == order.tolist()
    assert not made.graph_findings()


def test_many_threads_build_a_sound_index(tmp_path: Path) -> None:
    each = data("cosine", 3000, 4)
    each.vectors[:] *= np.arange(1, 3001, dtype=np.float32)[:, None]
    made = build(tmp_path / "new", each, threads=16)
    labels = made.labels.astype(np.int64)
    assert sorted(labels) == list(range(1, 3001))
    norms = np.frombuffer(made.read("length.bin"), np.float32)
    true = np.linalg.norm(each.vectors[labels - 1].astype(np.float64), axis=1)
    np.testing.assert_allclose(norms, true, rtol=1e-7)
    assert not made.graph_findings()


@pytest.mark.parametrize("count", [1, 2, 3, 99, 100, 127, 128, 129])
def test_files_are_as_long_as_they_must_be(count: int, tmp_path: Path) -> None:
    made = build(tmp_path / "new", data("l2", count, 3))
    header = made.header
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]
    assert header["count"] == count <= header["capacity"]
    assert header["capacity"] == (100 if count < 100 else 128 if count < 129 else 256)
    assert len(made.read("data_level0.bin")) == count * header["stride"]
    assert made.read("length.bin") == bytes(4 * count)
    assert len(made.read("link_lists.bin")) == sum(4 + len(r) for r in made.upper_records())


HOSTILE = ["", "a" * 255, "b" * 256, "c" * 70_000, "ü\U0001f9ea", "new\nline", "\0", "p0\n"]


@pytest.mark.parametrize("count", [0, 1, 2, 990, 992, 1992, 2500])
def test_id_maps_are_those_of_chroma(count: int) -> None:
    names = ([] if count == 1 else HOSTILE) + [f"id-{n}" for n in range(count)]
    ids = Strings.of(name.encode() for name in names)
    labels = np.arange(1, len(names) + 1, dtype=np.uint64)
    seq_ids = np.arange(len(names)) ** 4
    forward = {name: n for n, name in enumerate(names, 1)}
    maps = {
        "id_to_label": forward,
        "label_to_id": {n: name for name, n in forward.items()},
        "id_to_seq_id": dict(zip(names, seq_ids.tolist(), strict=True)),
    }
    for watermark in (None, 0, 255, 256, 1 << 16, 1 << 31, 1 << 40):
        file = io.BytesIO()
        write_instance(file, ids, labels, len(ids), 384, seq_ids, watermark)
        numbers = {"dimensionality": 384, "total_elements_added": len(names)}
        expected = dumps_python(
            numbers | ({} if watermark is None else {"max_seq_id": watermark}) | maps
        )
        assert unframed(file.getvalue()) == unframed(expected)
        check_decoded(file.getvalue(), names)
    file = io.BytesIO()
    write_dict(file, ids, labels, len(ids))
    state = {"dimensionality": None, "total_elements_added": len(names), "max_seq_id": None}
    assert pickle.loads(file.getvalue()) == state | maps | {"id_to_seq_id": {}}  # noqa: S301
    if len(names) < 1000:  # the fixtures' writer makes no batches
        assert file.getvalue() == dumps_rust(state | maps | {"id_to_seq_id": {}})
    check_decoded(file.getvalue(), names)


def check_decoded(pickled: bytes, names: Sequence[str]) -> None:
    id_map = decode_id_map(pickled)
    assert id_map.problem is None
    assert id_map.total_elements_added == len(names)
    for pairs in (id_map.id_to_label, id_map.label_to_id):
        assert list(pairs.ids) == [name.encode() for name in names]
        assert pairs.labels.tolist() == list(range(1, len(names) + 1))


def unframed(pickled: bytes) -> list[tuple[str, Any]]:
    """Its opcodes; where frames end is not said by the format."""
    found = ((opcode.name, argument) for opcode, argument, _ in pickletools.genops(pickled))
    return [each for each in found if each[0] != "FRAME"]


def test_what_is_needed_is_estimated(tmp_path: Path) -> None:
    each = data("cosine", 5000, 16)
    made = build(tmp_path / "new", each)
    size = sum(path.stat().st_size for path in made.folder.iterdir())
    saved = size - sum(
        (made.folder / name).stat().st_size for name in ("length.bin", "index_metadata.pickle")
    )
    memory, disk = estimate(5000, 16, 16)
    assert size + saved <= disk <= 1.5 * (size + saved)
    assert memory >= saved


# --- What goes wrong -----------------------------------------------------------------------------


def build(
    folder: Path, each: Data, *, ids: Sequence[bytes] | None = None, **settings: Any
) -> Segment:
    count, dimension = each.vectors.shape
    done: list[int] = []
    build_segment(
        folder,
        [each.vectors],
        [b"%d" % n for n in range(count)] if ids is None else ids,
        IndexSettings(space=each.space, dimension=dimension, **{"line": "1.5"} | settings),
        scratch=folder.with_name("scratch"),
        advance=done.append,
    )
    assert sum(done) == count
    return Segment(folder)


@pytest.mark.parametrize(
    ("ids", "settings", "message"),
    [
        ([], {}, "no records"),
        ([b"a", b"a"], {}, "1 ids occur more than once"),
        ([b"a", b"\xff"], {}, "the id at 1 is not UTF-8"),
        ([b"a"], {}, "1 ids, and more vectors"),
        ([b"a", b"b", b"c"], {}, "3 ids, and 2 vectors"),
        (None, {"dimension": 4}, "shape"),
        (None, {"dimension": 0}, "0 dimensions"),
        (None, {"space": "hamming"}, "unknown space 'hamming'"),
        (None, {"line": "2.0"}, "unknown line '2.0'"),
        (None, {"m": 1}, "M is 1"),
        (None, {"line": "0.6"}, "seq_id for every record"),
    ],
)
def test_what_does_not_fit_is_refused(
    ids: list[bytes] | None, settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    usual: dict[str, Any] = {"space": "l2", "dimension": 3, "line": "1.5"}
    with pytest.raises(UsageError, match=message):
        build_segment(
            tmp_path / "new",
            [np.zeros((2, 3), np.float32)],
            [b"a", b"b"] if ids is None else ids,
            IndexSettings(**usual | settings),
            scratch=tmp_path / "scratch",
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("space", SPACES)
def test_vectors_that_are_not_finite_are_named(space: str, tmp_path: Path) -> None:
    each = data(space, 40_000, 2)
    bad = [3, 20_000, 39_999]
    each.vectors[bad, 1] = [np.nan, np.inf, -np.inf]
    each.vectors[5] = np.finfo(np.float32).max
    with pytest.raises(VectorsNotFinite, match="3 vectors are not finite, at 3, 20000") as caught:
        build(tmp_path / "new", each)
    assert list(caught.value.positions) == bad
    assert not list(tmp_path.iterdir())


def test_without_hnswlib_there_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(EngineMissing, match=r"hnswcheck\[repair\]"):
        build(tmp_path / "new", data("l2", 3, 3))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken", ["new", "scratch"])
def test_nothing_that_is_there_is_overwritten(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).write_text("mine")
    with pytest.raises(ActionFailed, match="File exists"):
        build(tmp_path / "new", data("l2", 3, 3))
    assert [path.name for path in tmp_path.iterdir()] == [taken]
    assert (tmp_path / taken).read_text() == "mine"


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file can grow beyond, in Python or in hnswlib."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("id_size", [10, 10_000])
def test_a_full_disk_leaves_nothing_behind(id_size: int, tmp_path: Path) -> None:
    """Wherever it is full: hnswlib does not say that it could not save an index."""
    each, ids = data("l2", 300, 8), [b"%0*d" % (id_size, n) for n in range(300)]
    made = build(tmp_path / "new", each, ids=ids)
    saved = 96 + sum(len(made.read(name)) for name in ("data_level0.bin", "link_lists.bin"))
    enough = max(saved, *(path.stat().st_size for path in made.folder.iterdir()))
    shutil.rmtree(made.folder)
    limits = {0, 50, 96, 97, saved // 2, saved - 400, saved - 4, saved - 1, enough - 1}
    for limit in limits:
        with (
            files_up_to(limit),
            pytest.raises(ActionFailed, match="index could not be built in"),
        ):
            build(tmp_path / "new", each, ids=ids)
        assert not list(tmp_path.iterdir()), limit
    with files_up_to(enough):
        build(tmp_path / "new", each, ids=ids)


@pytest.mark.parametrize("error", [OSError("broken"), KeyboardInterrupt(), ValueError()])
def test_an_error_of_the_vectors_is_passed_on(error: BaseException, tmp_path: Path) -> None:
    def vectors() -> Iterator[Floats]:
        yield np.zeros((2, 3), np.float32)
        raise error

    settings = IndexSettings(space="l2", dimension=3, line="1.5")
    with pytest.raises(type(error)):
        build_segment(
            tmp_path / "new", vectors(), [b"a", b"b"], settings, scratch=tmp_path / "scratch"
        )
    assert not list(tmp_path.iterdir())


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
