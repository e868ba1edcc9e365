"""Quarantine moves what is damaged, exactly, and says exactly what that costs; never more.

The corpus, as its generator and a real Chroma judge it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from environments import engine_of, python_of
from faults import Lab
from hypothesis import given, settings
from hypothesis import strategies as st
from moving import (
    BROKEN,
    DAMAGED_STORES,
    SOUND_STORES,
    Answer,
    Course,
    Stay,
    ask,
    difference,
    follow_all,
    has_broken_segment,
    serve_job,
    stay_all,
    sync_threshold,
    unmoved,
)
from oracle import Engine, copied_database
from stores import expectation, snapshot, unpack

import hnswcheck

pytestmark = pytest.mark.slow

NAME = re.compile(r"(?P<segment>[0-9a-f-]{36})\.quarantined-(?P<time>\d{8}T\d{6}Z)-[1-9]\d*")
LAB_SEEDS = range(24)
LEFT_BY_THE_DEAD = {"chroma.sqlite3-journal", "hnswcheck.journal", "hnswcheck.journal.new"}


@pytest.fixture(scope="module")
def courses(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Course]:
    return follow_all(DAMAGED_STORES, tmp_path_factory.mktemp("courses"))


@pytest.fixture(scope="module")
def stays() -> Mapping[str, Stay]:
    return stay_all(SOUND_STORES)


# --- What is sound stays where it is -------------------------------------------------------------


@pytest.mark.parametrize("name", SOUND_STORES)
def test_a_sound_store_is_never_moved_nor_changed(name: str, stays: Mapping[str, Stay]) -> None:
    found = stays[name]
    if isinstance(found.answer, str):
        assert expectation(name)["verdict"] == "undecided", found.answer
    else:
        assert found.answer.segments == ()
    assert found.after.dump == found.before.dump
    if LEFT_BY_THE_DEAD.isdisjoint(found.before.files):
        assert found.after.files == found.before.files
    else:  # it is finished, or rolled back as at any opening
        before = unmoved(found.before.files)
        assert unmoved(found.after.files) == {
            key: trace for key, trace in before.items() if key not in LEFT_BY_THE_DEAD
        }


def test_the_corpus_has_what_others_have_taken_for_damage(stays: Mapping[str, Stay]) -> None:
    names = {key: {Path(path).name for path in s.before.files} for key, s in stays.items()}
    empty_links = [
        key
        for key, found in stays.items()
        if any(k.endswith("link_lists.bin") and not t.size for k, t in found.before.files.items())
    ]
    without_pickle = [
        key
        for key, found in names.items()
        if "header.bin" in found and "index_metadata.pickle" not in found
    ]
    without_folder = [key for key, found in names.items() if "header.bin" not in found]
    assert len(empty_links) >= 3
    assert len(without_pickle) >= 3
    assert len(without_folder) >= 3
    assert {key.split("-")[0] for key in stays} == {
        "0.4.0", "0.4.3", "0.4.5", "0.4.14", "0.4.24", "0.5.0", "0.5.5", "0.5.11", "0.5.23",
        "0.6.3", "1.0.20", "1.1.1", "1.3.7", "1.5.9",
    }  # fmt: skip


@pytest.fixture(scope="module")
def engine(chroma: object) -> Engine:
    return engine_of()


def test_a_sound_store_of_the_fault_lab_is_never_moved(engine: Engine, tmp_path: Path) -> None:
    def wrong(seed: int) -> str:
        place = tmp_path / str(seed)
        place.mkdir()
        store = place / "store"
        said = Lab(engine, place).make("sound", seed, store)
        before = snapshot(store)
        result = hnswcheck.quarantine(store, accept_loss=True)
        assert result.report.stores[0].segments
        sound = not result.segments and snapshot(store) == before
        return "" if sound else f"seed {seed}: {said}: {result.segments}"

    with ThreadPoolExecutor(2) as pool:
        assert [text for text in pool.map(wrong, LAB_SEEDS) if text] == []


#: Sound in ways in which others see damage when times look odd.
WITH_ODD_TIMES = (
    "0.4.24-churn-l2",
    "0.6.3-never-flushed",
    "1.0.20-churn-l2",
    "1.5.9-churn-l2",
    "1.5.9-exactly-flushed",
    "1.5.9-interrupted-flush-of-adds",
    "1.5.9-never-flushed",
    "1.5.9-single-element",
)


@pytest.fixture(scope="module")
def timeless(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    root = tmp_path_factory.mktemp("timeless")
    return {name: unpack(name, root) for name in WITH_ODD_TIMES}


YEARS = 365 * 24 * 3600
#: Seconds: the epoch, before it, today, and beyond what 32 bits hold.
TIMES = st.one_of(
    st.sampled_from((0, -YEARS, int(datetime.now(UTC).timestamp()) // YEARS * YEARS, 2**33)),
    st.integers(-10 * YEARS, 200 * YEARS),
)


@given(name=st.sampled_from(WITH_ODD_TIMES), data=st.data())
@settings(max_examples=50)
def test_no_mtime_makes_damage(
    timeless: Mapping[str, Path], name: str, data: st.DataObject
) -> None:
    store = timeless[name]
    for path in sorted([store, *store.rglob("*")]):
        seconds = data.draw(TIMES, str(path.name))
        os.utime(path, ns=(0, seconds * 10**9 + data.draw(st.integers(0, 10**9 - 1))))
    before = snapshot(store)
    assert hnswcheck.quarantine(store, accept_loss=True).segments == ()
    assert snapshot(store) == before


@pytest.mark.parametrize("name", WITH_ODD_TIMES)
@pytest.mark.parametrize("years", [-30, -3, 3, 60])
def test_no_gap_between_sqlite_and_index_makes_damage(
    timeless: Mapping[str, Path], name: str, years: int
) -> None:
    store = timeless[name]
    then = 1_700_000_000
    for path in [*store.rglob("*"), store]:
        index = path.parent != store
        os.utime(path, (then, then + years * YEARS if index else then))
    before = snapshot(store)
    assert hnswcheck.quarantine(store, accept_loss=True).segments == ()
    assert snapshot(store) == before


# --- What is damaged is moved, and nothing else --------------------------------------------------


def is_idle(fate: hnswcheck.Fate, reports: Mapping[str | None, hnswcheck.SegmentReport]) -> bool:
    """Whether Chroma reads the index as it is, and finds as much, and no more that is wrong."""
    ledger = reports[fate.segment].ledger
    if fate.status != "diverged" or ledger.records_after_replay is None:
        return False
    if (ledger.phantom or 0) > fate.phantom:
        return False
    return fate.searchable <= ledger.records_after_replay - (ledger.missing or 0)


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_exactly_the_damaged_segments_that_have_a_folder_are_moved(
    name: str, courses: Mapping[str, Course]
) -> None:
    course = courses[name]
    if not course.statuses and isinstance(course.careful, str):
        assert course.careful.split(":")[0] == "SqliteDamaged"
        assert course.after_reckless.files == course.start.files
        return
    broken = {s for s, status in course.statuses.items() if status in BROKEN}
    assert isinstance(course.careful, hnswcheck.QuarantineResult), course.careful
    assert isinstance(course.reckless, hnswcheck.QuarantineResult), course.reckless
    sqlite = any(found.id == "sqlite-damaged" for found in course.careful.report.findings)
    expected = set() if sqlite else broken & course.folders
    reports = {s.vector_segment: s for s in course.careful.report.stores[0].segments}
    idle = {fate.segment for fate in course.reckless.segments if is_idle(fate, reports)}
    expected -= idle
    assert set(course.moved) == expected
    gone = {
        path for path in course.start.files if "/" not in path
    } - course.after_reckless.files.keys()
    assert gone - {"chroma.sqlite3-journal", "chroma.sqlite3-wal", "chroma.sqlite3-shm"} == expected


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_every_damaged_segment_is_answered_for_and_why_it_stayed(
    name: str, courses: Mapping[str, Course]
) -> None:
    course = courses[name]
    if isinstance(course.careful, str):
        pytest.skip("there is no answer")
    fates = {fate.segment: fate for fate in course.careful.segments}
    assert fates.keys() == {s for s, status in course.statuses.items() if status in BROKEN}
    for fate in fates.values():
        assert bool(fate.kept) == (fate.moved_to is None)
        assert fate.status in BROKEN
        assert fate.findings


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_without_accepting_loss_only_what_the_wal_holds_whole_is_moved(
    name: str, courses: Mapping[str, Course]
) -> None:
    course = courses[name]
    if isinstance(course.careful, str):
        assert course.after_careful.files == course.start.files
        return
    for fate in course.careful.segments:
        if fate.segment in course.folders and fate.segment in course.moved:
            assert (fate.moved_to is not None) == (fate.after_repair == 0 == fate.lost)
    if not any(fate.moved_to for fate in course.careful.segments):
        assert unmoved(course.after_careful.files) == unmoved(course.start.files)
        assert course.after_careful.dump == course.start.dump


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_a_dry_run_changes_nothing_and_foretells_everything(
    name: str, courses: Mapping[str, Course]
) -> None:
    course = courses[name]
    assert course.after_dry_run == course.start.files
    if isinstance(course.wanted, str) or isinstance(course.reckless, str):
        assert type(course.wanted) is type(course.reckless)
        return
    told = {fate.segment: fate for fate in course.wanted.segments}
    for segment, fate in course.moved.items():
        kept = told[segment].kept
        assert told[segment] == replace(fate, moved_to=None, kept=kept)
    assert all(fate.moved_to is None for fate in course.wanted.segments)


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_the_numbers_add_up_to_the_records(name: str, courses: Mapping[str, Course]) -> None:
    course = courses[name]
    if isinstance(course.wanted, str):
        pytest.skip("there is no answer")
    segments = {s.vector_segment: s for s in course.wanted.report.stores[0].segments}
    for fate in course.wanted.segments:
        records = segments[fate.segment].ledger.records_after_replay
        if records is not None and fate.lost is not None:
            assert fate.searchable + fate.after_repair + fate.lost == records


# --- What is moved is only renamed ---------------------------------------------------------------


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_contents_of_what_is_moved_are_untouched(name: str, courses: Mapping[str, Course]) -> None:
    course = courses[name]
    expected = {}
    for path, trace in unmoved(course.start.files).items():
        first, _, rest = path.partition("/")
        fate = course.moved.get(first)
        new = f"{fate.moved_to}/{rest}".removesuffix("/") if fate else path
        expected[new] = trace
    found = unmoved(course.after_reckless.files)
    for manifest in course.manifests:
        found.pop(manifest)
    assert found == expected


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_names_and_manifests_tell_what_was_moved_when_and_why(
    name: str, courses: Mapping[str, Course]
) -> None:
    course = courses[name]
    assert course.manifests.keys() == {f"{fate.moved_to}.json" for fate in course.moved.values()}
    now = datetime.now(UTC)
    for segment, fate in course.moved.items():
        assert fate.moved_to
        parts = NAME.fullmatch(fate.moved_to)
        assert parts, fate.moved_to
        assert parts["segment"] == segment
        time = datetime.strptime(parts["time"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert 0 <= (now - time).total_seconds() < 1_000
        manifest = json.loads(course.manifests[f"{fate.moved_to}.json"])
        assert (manifest["folder"], manifest["segment"]) == (fate.moved_to, segment)
        assert datetime.fromisoformat(manifest["time"]) == time
        assert manifest["why"] == list(fate.findings)
        assert manifest["tool"] == {"name": "hnswcheck", "version": hnswcheck.__version__}
        assert manifest["report"]["vector_segment"] == segment
        assert manifest["report"]["status"] == fate.status
        errors = [f["id"] for f in manifest["report"]["findings"] if f["severity"] == "error"]
        assert errors == list(fate.findings)
        assert manifest["searchable"] == fate.searchable
        assert manifest["after_repair"] == fate.after_repair
        assert course.start.dump
        row = course.start.dump.watermarks.get(segment)
        assert (manifest["watermark"] is None) == (row is None)
        if row is not None:
            assert (manifest["watermark"]["rowid"], manifest["watermark"]["type"]) == row[:2]
        prefix = f"{segment}/"
        files = {
            path.removeprefix(prefix): (trace.size, trace.mtime_ns, trace.content)
            for path, trace in course.start.files.items()
            if path.startswith(prefix)
        }
        prints = {f["name"]: (f["size"], f["mtime_ns"], f["sha256"]) for f in manifest["files"]}
        assert prints == files


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_only_the_watermark_of_what_is_moved_goes_from_sqlite(
    name: str, courses: Mapping[str, Course]
) -> None:
    course = courses[name]
    before, after = course.start.dump, course.after_reckless.dump
    if before is None or not course.moved:
        assert after == before
        return
    assert after is not None
    kept = {key: row for key, row in before.watermarks.items() if key not in course.moved}
    assert after.watermarks == kept
    gone = [segment for segment in course.moved if segment in before.watermarks]
    lines = difference(before, after)
    assert len(lines) == len(gone)
    for segment in gone:
        (line,) = (line for line in lines if segment in line)
        assert line.startswith('- INSERT INTO "max_seq_id"')


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_what_is_left_passes_the_next_load_validation(
    name: str, courses: Mapping[str, Course]
) -> None:
    """It refuses an absent id map under a watermark above 0."""
    after = courses[name].after_reckless
    for segment in courses[name].moved:
        assert after.dump
        assert segment not in after.dump.watermarks
        assert segment not in after.files


@pytest.mark.parametrize("name", DAMAGED_STORES)
def test_restore_gives_back_every_byte(name: str, courses: Mapping[str, Course]) -> None:
    course = courses[name]
    assert list(course.restored) == ["done: True"] * len(course.moved)
    assert unmoved(course.end.files) == unmoved(course.start.files)
    assert course.end.dump == course.start.dump


def test_the_corpus_has_many_that_are_moved(courses: Mapping[str, Course]) -> None:
    moved = [name for name, course in courses.items() if course.moved]
    assert len(moved) > 140
    versions = {name.split("-")[0] for name in moved}
    assert versions == {
        "0.4.14", "0.4.24", "0.5.0", "0.5.5", "0.5.11", "0.5.23", "0.6.3", "1.0.20", "1.1.1",
        "1.3.7", "1.5.9",
    }  # fmt: skip
    careful = [
        name
        for name, course in courses.items()
        if not isinstance(course.careful, str) and any(f.moved_to for f in course.careful.segments)
    ]
    assert len(careful) >= 3


# --- What Chroma serves then ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Served:
    """What Chroma said of a moved segment in a fresh process, and after reopening.

    Attributes:
        blind: METADATA's watermark is beyond the log, so that new records never arrive.
    """

    fate: hnswcheck.Fate
    first: Answer
    second: Answer
    blind: bool


def serve_moved(
    engine: Engine, courses: Mapping[str, Course], version: str, scratch: Path
) -> dict[str, list[Served]]:
    asked = []
    for name in with_broken_segments(version):
        course = courses[name]
        for fate in course.moved.values():
            # So many that Chroma flushes, unless that takes a thousand.
            threshold = sync_threshold(course.copy, fate.collection.id)
            adds = threshold + 5 if threshold < 200 else 30
            asked.append((name, fate, course.copy, adds, is_blind(course.copy, fate)))

    def jobs(prefix: str, expected: Sequence[int], added: int | None = None) -> list[Answer]:
        return [
            serve_job(
                copy,
                asdict(fate.collection),
                {"do": "serve", "results": 0, "expected": count},
                {"do": "write", "prefix": prefix, "adds": added or adds},
                dimension=fate.collection.dimension or 8,
            )
            for (_, fate, copy, adds, _), count in zip(asked, expected, strict=True)
        ]

    there = [fate.searchable + fate.phantom for _, fate, *_ in asked]
    first = ask(engine, jobs("new-", there), scratch)
    second = ask(engine, jobs("newer-", [len(still_found(one)) for one in first], 3), scratch)
    found: dict[str, list[Served]] = {}
    for (name, fate, _, _, blind), one, two in zip(asked, first, second, strict=True):
        found.setdefault(name, []).append(Served(fate, one, two, blind))
    return found


def still_found(answer: Answer) -> set[str]:
    """What searches must find after the writes."""
    kept = set(answer.get("hits", ())) - set(answer.get("gone", ()))
    return kept | set(answer.get("added", ()))


def is_blind(store: Path, fate: hnswcheck.Fate) -> bool:
    query = (
        "SELECT m.seq_id FROM segments s JOIN max_seq_id m ON m.segment_id = s.id"
        " WHERE s.collection = ? AND s.scope = 'METADATA'"
    )
    with copied_database(store) as database:
        ((mark,),) = database.execute(query, (fate.collection.id,))
        ((last,),) = database.execute("SELECT coalesce(max(seq_id), 0) FROM embeddings_queue")
    return bool((int.from_bytes(mark) if isinstance(mark, bytes) else mark) > last)


def with_broken_segments(version: str) -> list[str]:
    named = [name for name in DAMAGED_STORES if name.startswith(f"{version}-")]
    return [name for name in named if has_broken_segment(name)]


def check_served(found: Served) -> None:
    if "wal-unreadable" in found.fate.findings:
        # Chroma fails for ever, or skips such rows, or takes what is next to them for a vector.
        assert found.fate.searchable == 0
        return
    assert "hits" in found.first, found.first.get("error")
    hits, ids = found.first["hits"], found.first["ids"]
    assert len(set(hits)) == len(hits) == found.fate.searchable + found.fate.phantom
    assert len(set(hits) - set(ids)) == found.fate.phantom
    assert found.first["count"] == len(ids)


def check_written(found: Served) -> None:
    if "wal-unreadable" in found.fate.findings:
        return
    first, second = found.first, found.second
    assert "error" not in first
    assert "error" not in second
    if found.fate.collection.dimension is None:
        # The first write tells Chroma how long vectors are, and the log is searched from then on.
        assert set(second["hits"]) >= still_found(first)
        return
    if found.blind:
        # What is written is lost on Chroma's way to the records, wherever the index is.
        assert set(second["hits"]) >= set(first["hits"]) - set(first["gone"])
        return
    assert set(second["hits"]) == still_found(first)
    assert second["count"] == len(set(first["ids"]) - set(first["gone"])) + len(first["added"])
    assert set(second["ids"]) == set(first["ids"]) - set(first["gone"]) | set(first["added"])


@pytest.fixture(scope="module")
def served(
    engine: Engine, courses: Mapping[str, Course], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Sequence[Served]]:
    return serve_moved(engine, courses, "1.5.9", tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("name", with_broken_segments("1.5.9"))
def test_chroma_serves_exactly_what_was_said_to_stay_searchable(
    name: str, served: Mapping[str, Sequence[Served]]
) -> None:
    for found in served.get(name, ()):
        check_served(found)


@pytest.mark.parametrize("name", with_broken_segments("1.5.9"))
def test_chroma_takes_writes_then_and_loses_nothing_more(
    name: str, served: Mapping[str, Sequence[Served]]
) -> None:
    for found in served.get(name, ()):
        check_written(found)


@pytest.fixture(scope="module")
def served_by_0_6(
    courses: Mapping[str, Course], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, Sequence[Served]]:
    engine = engine_of(python_of("0.6.3"))
    return serve_moved(engine, courses, "0.6.3", tmp_path_factory.mktemp("served"))


@pytest.mark.parametrize("name", with_broken_segments("0.6.3"))
def test_chroma_0_6_serves_exactly_that_and_takes_writes_too(
    name: str, served_by_0_6: Mapping[str, Sequence[Served]]
) -> None:
    for found in served_by_0_6.get(name, ()):
        check_served(found)
        check_written(found)
