"""What is embedded again: by the right function, once, and before anything is changed."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from stores import REPOSITORY, SUPPORT, environment, one_line, rest, snapshot

import hnswcheck
from hnswcheck.repairing.embedder import Embed
from hnswcheck.repairing.vector_cache import (
    APPLICATION,
    FOLDER,
    SUFFIX,
    KeptVectors,
    Origin,
    kept_vectors,
)

pytest.importorskip("hnswlib", reason="an index cannot be built without it")
chromadb = pytest.importorskip("chromadb", reason="it keeps the functions")
pytestmark = pytest.mark.usefixtures("chroma")

import embedders  # noqa: E402
from embedders import (  # noqa: E402
    ASKED,
    DIMENSION,
    FACTORS,
    STOPS,
    WAITS,
    document,
    numbers,
    vector,
)

#: Documents of a collection that differ; of its last record the log still has the vector.
DIFFERENT = 50


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("made") / "store"
    command = [sys.executable, str(SUPPORT / "embedders.py"), str(store)]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    return store


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache, a list of what was asked for, and chromadb's own table for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(ASKED, str(tmp_path / "asked"))
    functions = "chromadb.utils.embedding_functions.known_embedding_functions"
    known = dict(sys.modules["chromadb.utils.embedding_functions"].known_embedding_functions)
    monkeypatch.setattr(functions, known)
    monkeypatch.setattr("embedders.known_embedding_functions", known)


def broken(made: Path, tmp_path: Path, *collections: str) -> Path:
    """A copy of the store in which the vectors of some collections are gone."""
    store = tmp_path / "store"
    shutil.copytree(made, store)
    for segment in hnswcheck.audit(store).stores[0].segments:
        if segment.collection.name in collections:
            (store / str(segment.vector_segment) / "data_level0.bin").unlink()
    return rest(store)


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """Its collection docs has no vectors any more, and its function is known."""
    embedders.register()
    return broken(made, tmp_path, "docs")


def caches(tmp_path: Path) -> list[Path]:
    return sorted(tmp_path.joinpath("cache", APPLICATION, FOLDER).glob("*"))


def contents(store: Path) -> dict[str, str]:
    return {name: trace.content for name, trace in snapshot(store).items()}


def check(store: Path, collection: str, factor: float) -> None:
    """The engine has for each record the vector of its document, for the last that of the log."""
    code = (
        "import sys, json, chromadb\n"
        "c = chromadb.PersistentClient(sys.argv[1]).get_collection(sys.argv[2], None)\n"
        "found = c.get(include=['embeddings', 'documents'])\n"
        "json.dump([found['ids'], found['documents'], found['embeddings'].tolist()], sys.stdout)\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(store), collection]
    done = subprocess.run(command, check=True, capture_output=True, env=environment())
    ids, documents, vectors = json.loads(done.stdout)
    assert len(ids) == embedders.RECORDS
    factors = [FACTORS[collection] if record == max(ids) else factor for record in ids]
    expected = [vector(text, by) for text, by in zip(documents, factors, strict=True)]
    assert np.allclose(vectors, np.array(expected, np.float32))


def repaired(store: Path, embed: object = "own", **options: object) -> hnswcheck.RepairReport:
    options = {"collections": ["docs"], "batch": 10, "verify": "audit", **options}
    report = hnswcheck.repair(store, embed=embed, **options)  # type: ignore[arg-type]
    assert report.after is not None
    return report


OPTIONS = ("--batch-size", "10", "--verify", "audit")


def command(store: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """The program, where the functions of this module are registered."""
    code = "import embedders, hnswcheck.cli.app; embedders.register(); hnswcheck.cli.app.main()"
    path = os.pathsep.join([str(SUPPORT), str(REPOSITORY)])
    return subprocess.Popen(
        [sys.executable, "-c", code, "repair", str(store), *OPTIONS, *arguments],
        env=environment(**variables) | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- The collection's own function ---------------------------------------------------------------


def test_the_function_that_chromadb_keeps_makes_the_vectors_again(
    store: Path, tmp_path: Path
) -> None:
    report = repaired(store)
    assert report.after is not None
    assert report.after.verdict == "consistent"
    (segment,) = report.repaired
    assert segment.fates.embedder is not None
    assert segment.fates.embedder.label == "numbers"
    asked = embedders.asked()
    assert len(asked) == len(set(asked)) == DIFFERENT  # 60 records share them
    assert caches(tmp_path) == []
    check(store, "docs", factor=2.0)


def test_each_collection_is_embedded_by_its_own(made: Path, tmp_path: Path) -> None:
    embedders.register()
    store = broken(made, tmp_path, "docs", "more")
    report = repaired(store, collections=None)
    assert report.after is not None
    assert report.after.verdict == "consistent"
    check(store, "docs", factor=2.0)
    check(store, "more", factor=3.0)


def test_the_bare_option_is_the_same(store: Path) -> None:
    with command(store, "--reembed", "--yes") as process:
        out, error = process.communicate()
    assert process.returncode == 0, error
    assert "embedded again by numbers" in " ".join(out.split())
    check(store, "docs", factor=2.0)


def test_a_class_that_chromadb_does_not_know_can_be_given(made: Path, tmp_path: Path) -> None:
    store = broken(made, tmp_path, "stranger")
    options = {"collections": ["stranger"]}
    with pytest.raises(
        hnswcheck.RepairRefused, match="chromadb does not know its embedding function 'stranger'"
    ):
        repaired(store, **options)
    with pytest.raises(hnswcheck.RepairRefused, match="'stranger' is not 'numbers'"):
        repaired(store, embedders.Numbers, **options)
    with command(store, "--embed-with=embedders:Stranger", "--yes") as process:
        _, error = process.communicate()
    assert process.returncode == 0, error
    check(store, "stranger", factor=1.0)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("none", "kept no embedding function with it"),
        ("legacy", "kept as 'legacy'"),
        ("openai", r"'openai' cannot be built: \w+: .*openai python package"),
        (
            "stranger",
            r"'stranger'; name its class with --embed-with MODULE:CLASS",
        ),
    ],
)
def test_a_function_that_cannot_be_had_is_refused_before_anything_is_changed(
    name: str, says: str, made: Path, tmp_path: Path
) -> None:
    store = broken(made, tmp_path, name)
    before = snapshot(store)
    with pytest.raises(hnswcheck.RepairRefused, match=says) as raised:
        hnswcheck.repair(store, [name], embed="own")
    assert "\n" not in str(raised.value)
    assert "--embed-with MODULE:FUNCTION" in str(raised.value)
    (segment,) = hnswcheck.repair(store, [name], embed="own", dry_run=True).refused
    assert segment.reason
    assert snapshot(store) == before
    assert caches(tmp_path) == []


def test_a_function_that_fails_while_it_is_built_says_why(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(config: object) -> None:
        raise ValueError("The NUMBERS_API_KEY environment variable is not set.\nSet it.")

    monkeypatch.setattr(embedders.Numbers, "build_from_config", build)
    with pytest.raises(hnswcheck.RepairRefused, match=r"NUMBERS_API_KEY .* is not set.; name a"):
        repaired(store)


def test_without_chromadb_one_line_says_so(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(store)
    monkeypatch.setitem(sys.modules, "chromadb.utils.embedding_functions", None)
    with pytest.raises(hnswcheck.RepairRefused, match="chromadb is not installed here"):
        repaired(store)
    assert snapshot(store) == before


def test_a_function_that_nothing_needs_is_not_asked_for(made: Path, tmp_path: Path) -> None:
    """Of a collection whose vectors are all proven, or that is sound."""
    store = broken(made, tmp_path)
    assert hnswcheck.repair(store, embed="own").segments == ()


def test_what_is_no_function_is_wrong_use(store: Path) -> None:
    for wrong, says in [("other", "neither a function"), (int, "is a class"), (3, "neither")]:
        with pytest.raises(hnswcheck.UsageError, match=says):
            repaired(store, wrong)
    with pytest.raises(hnswcheck.UsageError, match="at least one document, not 0"):
        repaired(store, batch=0)


# --- Interrupted, and resumed --------------------------------------------------------------------


def test_a_run_whose_function_fails_goes_on_where_it_was(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(store)
    monkeypatch.setenv(STOPS, "25")
    with pytest.raises(hnswcheck.RepairRefused, match="ConnectionError: the model went away;"):
        repaired(store)
    assert contents(store) == before
    monkeypatch.delenv(STOPS)
    first = embedders.asked()
    assert len(first) == 20
    (cache,) = caches(tmp_path)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert {stat.S_IMODE(p.stat().st_mode) for p in (cache.parent, cache.parents[1])} == {0o700}
    repaired(store)
    later = embedders.asked()[len(first) :]
    assert later[:4] == first[:4]  # whether the function is still the same
    assert sorted(first + later[4:]) == sorted({document(n) for n in range(50)})
    assert caches(tmp_path) == []
    check(store, "docs", factor=2.0)


def test_a_run_that_was_killed_goes_on_where_it_was(store: Path, tmp_path: Path) -> None:
    before = contents(store)
    with command(store, "--reembed", "--yes", **{STOPS: "35", WAITS: "1"}) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "waiting\n":
            assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
    assert contents(store) == before
    assert len(embedders.asked()) == 30
    with command(store, "--reembed", "--yes") as process:
        _, error = process.communicate()
    assert process.returncode == 0, error
    assert len(embedders.asked()) == DIFFERENT + 4
    assert caches(tmp_path) == []
    check(store, "docs", factor=2.0)


def test_a_run_that_a_person_interrupts_goes_on_where_it_was(store: Path, tmp_path: Path) -> None:
    before = contents(store)
    with command(store, "--reembed", "--yes", **{STOPS: "35", WAITS: "1"}) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "waiting\n":
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130
    assert one_line(error) == "hnswcheck: interrupted\n"
    assert contents(store) == before
    assert len(caches(tmp_path)) == 1
    repaired(store)
    assert len(embedders.asked()) == DIFFERENT + 4


def test_a_function_by_name_goes_on_where_it_was(store: Path, tmp_path: Path) -> None:
    arguments = ("--embed-with", "embedders:numbers", "--yes")
    with command(store, *arguments, **{STOPS: "25"}) as process:
        _, error = process.communicate()
    assert process.returncode == 1
    assert "the model went away; nothing was changed" in one_line(error)
    repaired(store, numbers)  # the same by the library
    assert len(embedders.asked()) == DIFFERENT + 4
    check(store, "docs", factor=1.0)


def test_a_function_that_changed_meanwhile_is_noticed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(STOPS, "25")
    with pytest.raises(hnswcheck.RepairRefused):
        repaired(store)
    monkeypatch.delenv(STOPS)
    monkeypatch.setattr(
        embedders.Numbers, "build_from_config", lambda config: embedders.Numbers(1.9)
    )
    repaired(store)
    assert "numbers gives other vectors" in caplog.text
    assert len(embedders.asked()) == 20 + 4 + DIFFERENT
    check(store, "docs", factor=1.9)


def test_a_function_that_answers_a_little_differently_is_the_same(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STOPS, "25")
    with pytest.raises(hnswcheck.RepairRefused):
        repaired(store)
    monkeypatch.delenv(STOPS)
    monkeypatch.setattr(
        embedders.Numbers, "build_from_config", lambda config: embedders.Numbers(2.001)
    )
    repaired(store)
    assert len(embedders.asked()) == DIFFERENT + 4


@pytest.mark.parametrize("harm", ["cut", "longer", "zeroed", "another header", "empty"])
def test_what_is_not_whole_in_the_cache_is_embedded_anew(
    harm: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STOPS, "25")
    with pytest.raises(hnswcheck.RepairRefused):
        repaired(store)
    monkeypatch.delenv(STOPS)
    (cache,) = caches(tmp_path)
    data = cache.read_bytes()
    size = 32 + 4 + 4 * DIMENSION
    assert (len(data) - data.index(b"\n") - 1) == 20 * size
    match harm:
        case "cut":  # a kill within a write
            data, lost = data[:-7], 1
        case "longer":
            data, lost = data + b"\1" * 13, 0
        case "zeroed":  # a power loss, which kept the size of the file and not the end of it
            data, lost = data[: -3 * size + 40] + bytes(3 * size - 40), 3
        case "another header":
            data, lost = data.replace(b"embedded documents, 1", b"embedded documents, 0"), 20
        case _:
            data, lost = b"", 20
    cache.write_bytes(data)
    repaired(store)
    probes = 0 if lost == 20 else 4
    assert len(embedders.asked()) == 20 + probes + DIFFERENT - 20 + lost
    check(store, "docs", factor=2.0)


def test_what_nobody_can_recognise_again_is_not_kept(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lambda, a partial, an object: under one name they may be something else the next time."""
    nameless: list[Embed] = [
        lambda texts: numbers(texts),
        functools.partial(numbers, factor=1.0),
        embedders.Numbers(),
        embedders.Numbers().__call__,
    ]
    monkeypatch.setenv(STOPS, "25")
    for function in nameless:
        (tmp_path / "asked").unlink(missing_ok=True)
        with pytest.raises(hnswcheck.RepairRefused):
            repaired(store, function)
        assert len(embedders.asked()) == 20
        assert caches(tmp_path) == []
    monkeypatch.delenv(STOPS)
    repaired(store, nameless[0])
    assert len(embedders.asked()) == 20 + DIFFERENT


@pytest.mark.parametrize("place", ["a file", "the store", "locked"])
def test_without_a_cache_it_goes_on_and_says_so(
    place: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    match place:
        case "a file":
            (tmp_path / "cache").write_text("")
        case "the store":
            monkeypatch.setenv("XDG_CACHE_HOME", str(store))
        case _:
            monkeypatch.setattr("fcntl.flock", _refuse)
    report = repaired(store)
    assert report.after is not None
    assert report.after.verdict == "consistent"
    assert len(caplog.messages) == 1
    assert "the vectors cannot be kept" in caplog.text
    assert len(embedders.asked()) == DIFFERENT
    assert not list(store.rglob(f"*{SUFFIX}"))


def test_a_cache_directory_below_the_current_one_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The XDG specification has relative paths ignored: the next run may start elsewhere."""
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "here")
    origin = Origin("11111111-1111-1111-1111-111111111111", "mine:embed", 2)
    with kept_vectors(origin, tmp_path / "store", lambda _: None) as kept:
        kept.add([b"a" * 32], np.ones((1, 2), np.float32))
    assert list(Path().iterdir()) == []


def _refuse(*_: object) -> None:
    raise BlockingIOError


def test_two_processes_do_not_write_into_one_file(tmp_path: Path) -> None:
    said: list[str] = []
    origin = Origin("11111111-1111-1111-1111-111111111111", "mine:embed", 2)
    with kept_vectors(origin, tmp_path / "store", said.append) as first:
        first.add([b"a" * 32], np.ones((1, 2), np.float32))
        with kept_vectors(origin, tmp_path / "store", said.append) as second:
            assert second.places == {}
    assert len(said) == 1
    assert "another process uses the cache file" in said[0]
    with kept_vectors(origin, tmp_path / "store", said.append) as third:
        assert third.places == {b"a" * 32: 0}


def test_a_link_in_the_cache_is_not_followed(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STOPS, "25")
    with pytest.raises(hnswcheck.RepairRefused):
        repaired(store)
    monkeypatch.delenv(STOPS)
    (cache,) = caches(tmp_path)
    victim = cache.rename(tmp_path / "victim")
    before = victim.read_bytes()
    cache.symlink_to(victim)
    repaired(store)
    assert "the vectors cannot be kept" in caplog.text
    assert victim.read_bytes() == before


def test_many_vectors_come_back_in_any_order(tmp_path: Path) -> None:
    vectors = np.random.default_rng(1).standard_normal((3000, 5)).astype(np.float32)
    documents = [n.to_bytes(32) for n in range(3000)]
    origin = Origin("c", "f", 5)
    path = tmp_path / "kept"
    kept = KeptVectors(path, path.open("x+b"), origin)
    for first in range(0, 3000, 700):
        kept.add(documents[first : first + 700], vectors[first : first + 700])
    kept.close()
    again = KeptVectors(path, path.open("r+b"), origin)
    assert again.places == {document: n for n, document in enumerate(documents)}
    chosen = np.array([2999, 0, 1024, 1023, 7], np.int64)
    assert np.array_equal(again.read(chosen), vectors[chosen])
    again.forget()
    again.close()
    assert not path.exists()


# --- Functions that go wrong ---------------------------------------------------------------------


def interrupted(texts: list[str]) -> Sequence[Sequence[float]]:
    raise KeyboardInterrupt


def failing(texts: list[str]) -> Sequence[Sequence[float]]:
    raise RuntimeError


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (failing, "failed: RuntimeError; nothing"),
        (lambda texts: None, "one vector per document|of one length"),
        (lambda texts: ["a"] * len(texts), "no vectors of one length"),
        (lambda texts: [[1.0] * 8, [1.0]] * (len(texts) // 2), "no vectors of one length"),
        (lambda texts: [1.0] * len(texts), r"shape \(10,\), not one vector per document"),
        (lambda texts: [[1.0] * 8] * 3, "3 vectors for 10 documents"),
        (lambda texts: [[1.0] * 9] * len(texts), "of 9 dimensions; the collection has 8"),
        (lambda texts: [[1e300] * 8] * len(texts), "10 vectors that are not finite"),
        (lambda texts: [[float("nan")] * 8] * len(texts), "not finite"),
    ],
)
def test_what_a_function_gets_wrong_is_said_in_one_line(
    function: Embed, says: str, store: Path, tmp_path: Path
) -> None:
    before = contents(store)
    with pytest.raises(hnswcheck.RepairRefused, match=says) as raised:
        repaired(store, function)
    assert "\n" not in str(raised.value)
    assert contents(store) == before
    assert caches(tmp_path) == []


def test_an_interrupt_passes_through(store: Path) -> None:
    before = contents(store)
    with pytest.raises(KeyboardInterrupt):
        repaired(store, interrupted)
    assert contents(store) == before


def test_no_collection_is_touched_before_all_are_embedded(made: Path, tmp_path: Path) -> None:
    embedders.register()
    store = broken(made, tmp_path, "docs", "more")
    before = contents(store)
    calls: list[int] = []

    def embed(texts: list[str]) -> Sequence[Sequence[float]]:
        calls.append(len(texts))
        if len(calls) > 5:  # in the second collection
            raise ConnectionError
        return numbers(texts)

    with pytest.raises(hnswcheck.RepairRefused, match="ConnectionError"):
        repaired(store, embed, collections=None)
    assert len(calls) == 6
    assert contents(store) == before


def test_without_hnswlib_no_document_is_embedded(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "hnswlib", None)
    with pytest.raises(hnswcheck.EngineMissing):
        repaired(store)
    assert embedders.asked() == []


def test_progress_says_what_is_embedded(store: Path) -> None:
    heard: list[tuple[int, int, str]] = []
    repaired(store, progress=lambda *numbers: heard.append(numbers))
    embedding = [(done, total) for done, total, what in heard if what == "embedding docs"]
    assert embedding[0] < (20, 0)
    assert embedding[-1][0] == embedding[-1][1]
    assert len(embedding) > 4


# --- The options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--reembed", "embedders:numbers"), "unexpected extra argument"),
        (("--reembed=own",), "--reembed"),
        (("--reembed", "--embed-with", "embedders:numbers"), "exclude each other"),
        (("--embed-with",), "--embed-with"),
        (("--embed-with", "numbers"), "not of the form MODULE:FUNCTION"),
        (("--embed-with", "own"), "not of the form MODULE:FUNCTION"),
        (("--embed-with=",), "not of the form MODULE:FUNCTION"),
        (("--embed-with", "embedders:nothing"), "AttributeError"),
        (("--embed-with", "embedders:DIMENSION"), "neither a function"),
        (("--embed-with", "nowhere:embed"), "No module named 'nowhere'"),
    ],
)
def test_what_the_options_cannot_mean_is_wrong_use(
    arguments: tuple[str, ...], says: str, store: Path
) -> None:
    before = snapshot(store)
    with command(store, *arguments) as process:
        _, error = process.communicate()
    assert process.returncode == 2
    assert says in one_line(error)
    assert snapshot(store) == before
