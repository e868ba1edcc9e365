"""What a report says: its schema, its sums, and null for what was not measured."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import json
import signal
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from jsonschema import Draft202012Validator
from stores import NAMES, SOUND, Answer, corpus_answers, expectation, unpack

import hnswcheck
from hnswcheck import HnswcheckError, Level, Report, SegmentReport
from hnswcheck import report as module
from hnswcheck.auditing.runner import report_of_failure
from hnswcheck.kinds import SEVERITIES, Status
from hnswcheck.report import (
    ChromaInfo,
    CollectionInfo,
    Finding,
    Ledger,
    Pending,
    Recoverable,
    StoreReport,
    Tool,
    Verdict,
    finding,
    json_schema,
)

SCHEMA = json.loads(json_schema())
VALIDATOR = Draft202012Validator(SCHEMA)

#: The document of the design, 3-verdicts.md: names of every object's members.
DOCUMENT: dict[type, str] = {
    Report: "schema tool stores",
    Tool: "name version",
    StoreReport: "path verdict level complete elapsed_seconds chroma findings segments",
    ChromaInfo: "line releases migrations",
    SegmentReport: "collection vector_segment metadata_segment status ledger recoverable findings",
    CollectionInfo: "id name tenant database dimension space",
    Ledger: "records index_ids elements live tombstones total_elements_added capacity"
    " vector_watermark metadata_watermark wal_rows pending missing phantom",
    Pending: "add update upsert delete",
    Recoverable: "from_segment from_wal from_quarantine suspect lost",
    Finding: "id severity title count sample expected found consequence remedy",
}
#: Where the schema describes each of them.
DESCRIBED: dict[type, tuple[str, ...]] = {kind: ("$defs", kind.__name__) for kind in DOCUMENT}


def reported(name: str, level: Level) -> Report:
    """The report of a fixture, also of one that cannot be opened."""
    answer: Answer = corpus_answers()[name, level]
    if isinstance(answer, HnswcheckError):
        return Report((report_of_failure(name, level, answer),))
    return answer


def segments(level: Level) -> Iterator[tuple[str, SegmentReport]]:
    """Every segment of the corpus."""
    for name in NAMES:
        for segment in reported(name, level).stores[0].segments:
            c = segment.collection
            yield f"{name}: {c.tenant}/{c.database}/{c.name}", segment


def described(kind: type) -> dict[str, Any]:
    """What the schema says of a class."""
    found: Any = SCHEMA
    for step in DESCRIBED[kind]:
        found = found[step]
        found = _resolved(found)
    description: dict[str, Any] = found
    return description


def _resolved(part: Any) -> Any:
    if isinstance(part, dict) and "$ref" in part:
        _, _, path = part["$ref"].partition("#/")
        part = SCHEMA
        for step in path.split("/"):
            part = part[step]
    return part


# --- The schema ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_report_follows_the_schema(name: str) -> None:
    for level in Level:
        text = reported(name, level).to_json()
        assert text.isascii()
        document = json.loads(text)
        VALIDATOR.validate(document)
        assert document["stores"][0]["level"] == level


@pytest.mark.parametrize("name", NAMES)
def test_every_report_is_read_back_as_it_was(name: str) -> None:
    for level in Level:
        report = reported(name, level)
        for text in (report.to_json(), report.to_json(indent=None).encode()):
            assert Report.from_json(text) == report
        assert Report.from_json(report.to_json()).to_json() == report.to_json()


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_schema_and_the_classes_have_the_same_members() -> None:
    classes = {
        value
        for value in vars(module).values()
        if is_dataclass(value) and isinstance(value, type) and value.__module__ == module.__name__
    }
    assert classes == set(DESCRIBED)
    for kind in classes:
        names = {field.name for field in fields(kind)}
        description = described(kind)
        assert set(description["properties"]) == names, kind
        assert set(description["required"]) == names, kind
        assert description["additionalProperties"] is False, kind


def test_the_schema_and_the_classes_have_the_same_words() -> None:
    store, segment = described(StoreReport)["properties"], described(SegmentReport)["properties"]
    assert set(store["verdict"]["enum"]) == set(get_args(Verdict))
    assert set(_resolved(store["level"])["enum"]) == set(Level)
    assert set(segment["status"]["enum"]) == set(get_args(Status))
    assert set(described(Finding)["properties"]["severity"]["enum"]) == set(SEVERITIES)


@pytest.mark.parametrize("kind", DOCUMENT, ids=lambda kind: kind.__name__)
def test_every_name_of_the_design_is_there(kind: type) -> None:
    assert set(DOCUMENT[kind].split()) <= set(described(kind)["properties"])


def test_the_schema_refuses_a_member_more_or_less_anywhere() -> None:
    name = "1.5.9-damaged-folder-older"
    document = json.loads(reported(name, Level.STANDARD).to_json())
    places = list(_objects(document))
    assert len(places) > 10
    for path in places:
        for member in (*_at(document, path), None):
            changed = copy.deepcopy(document)
            target = _at(changed, path)
            if member is None:
                target["one more"] = 1
            else:
                del target[member]
            if path[-1:] == ("migrations",):  # a map, whatever its keys
                continue
            assert not VALIDATOR.is_valid(changed), (path, member)


def _objects(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    match value:
        case dict():
            yield path
            for key, each in value.items():
                yield from _objects(each, (*path, key))
        case list():
            for number, each in enumerate(value):
                yield from _objects(each, (*path, number))


def _at(document: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        document = document[step]
    return document


# --- The values ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DOCUMENT, ids=lambda kind: kind.__name__)
def test_report_objects_are_frozen_and_slotted(kind: type) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(kind)
    report = reported("1.5.9-damaged-folder-older", Level.STANDARD)
    (one, *_) = [value for value in _values(report) if type(value) is kind]
    assert not hasattr(one, "__dict__")
    name = fields(one)[0].name  # type: ignore[arg-type]
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(one, name, None)
    with pytest.raises((AttributeError, TypeError)):
        one.one_more = 1  # type: ignore[attr-defined]


def _values(value: object) -> Iterator[object]:
    if is_dataclass(value):
        yield value
        for field in fields(value):
            yield from _values(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from _values(each)


def test_no_report_holds_a_list() -> None:
    def look(value: object) -> None:
        assert not isinstance(value, list)
        if isinstance(value, tuple):
            for each in value:
                look(each)

    for name in NAMES:
        for value in _values(reported(name, Level.STANDARD)):
            for field in fields(value):  # type: ignore[arg-type]
                look(getattr(value, field.name))


NOT_MEASURED_AT_PROBE = (
    "index_ids live tombstones wal_rows records_after_replay index_ids_after_replay missing phantom"
)


def test_quantities_not_measured_at_probe_are_null() -> None:
    for where, segment in segments(Level.PROBE):
        ledger = asdict(segment.ledger)
        measured = {n: ledger[n] for n in NOT_MEASURED_AT_PROBE.split() if ledger[n] is not None}
        assert measured == {}, where
        assert set(asdict(segment.recoverable).values()) == {None}, where


def test_what_both_levels_measure_is_the_same() -> None:
    at_standard = dict(segments(Level.STANDARD))
    for where, segment in segments(Level.PROBE):
        probed, full = asdict(segment.ledger), asdict(at_standard[where].ledger)
        known = {name: value for name, value in probed.items() if value is not None}
        assert known == {name: full[name] for name in known}, where


def test_what_probe_calls_an_error_standard_confirms() -> None:
    for name in NAMES:
        probed, full = (reported(name, level) for level in (Level.PROBE, Level.STANDARD))
        errors = [{f.id for f in r.findings if f.severity == "error"} for r in (probed, full)]
        assert errors[0] <= errors[1], name
        if probed.verdict == "damaged":
            assert full.verdict == "damaged", name


def swallowed_adds(where: str) -> int:
    """How many records a store would have more, had Chroma applied what it swallowed."""
    name, _, key = where.partition(": ")
    expected = expectation(name)["collections"][key]
    return int(expected["meant"]) - int(expected["ledger"]["records"])


def test_recoverable_adds_up_to_the_records() -> None:
    known = 0
    for where, segment in segments(Level.STANDARD):
        parts = asdict(segment.recoverable).values()
        if None not in parts:
            known += 1
            made = swallowed_adds(where) if segment.ledger.swallowed else 0
            assert segment.ledger.records_after_replay is not None, where
            assert sum(parts) == segment.ledger.records_after_replay + made, where
        if segment.status in ("consistent", "lagging"):
            assert None not in parts, where
            assert segment.recoverable.lost == segment.recoverable.suspect == 0, where
    assert known > 200


def test_both_accounts_add_up() -> None:
    for where, segment in segments(Level.STANDARD):
        a = segment.ledger
        if a.missing is not None:
            assert a.phantom is not None, where
            assert a.records_after_replay is not None, where
            assert a.index_ids_after_replay is not None, where
            both = a.records_after_replay - a.missing
            assert both == a.index_ids_after_replay - a.phantom >= 0, where
        if a.live is not None:
            assert a.tombstones is not None, where
            assert a.elements == a.live + a.tombstones, where
        missing = sum(f.count for f in segment.findings if f.id == "records-missing")
        phantom = sum(f.count for f in segment.findings if f.id == "records-phantom")
        assert (missing, phantom) == (a.missing or 0, a.phantom or 0), where
        if segment.status in ("consistent", "lagging"):
            assert a.missing == a.phantom == 0, where


def test_a_finding_counts_at_least_its_sample() -> None:
    for name in NAMES:
        for level in Level:
            for found in reported(name, level).findings:
                assert len(found.sample) <= min(20, found.count), (name, found.id)
                assert len(set(found.sample)) == len(found.sample), (name, found.id)


def test_complete_and_verdict_follow_the_segments() -> None:
    for name in NAMES:
        (store,) = reported(name, Level.STANDARD).stores
        statuses = {segment.status for segment in store.segments}
        errors = any(found.severity == "error" for found in store.all_findings)
        assert (store.verdict == "damaged") == errors, name
        assert statuses & {"diverged", "corrupt"} <= ({"diverged", "corrupt"} if errors else set())
        if "undecided" in statuses:
            assert not store.complete, name
        if store.verdict == "consistent":
            assert store.complete, name
            assert statuses <= {"empty", "consistent", "lagging"}, name


# --- Exit codes ----------------------------------------------------------------------------------


def store_with(verdict: Verdict, *findings: Finding) -> StoreReport:
    (store,) = reported(SOUND, Level.STANDARD).stores
    return dataclasses.replace(
        store, verdict=verdict, complete=verdict != "undecided", findings=findings, segments=()
    )


def test_the_worst_store_decides() -> None:
    good = store_with("consistent")
    unsure = store_with("undecided", finding("store-changed"))
    bad = store_with("damaged", finding("sqlite-damaged"))
    for stores, verdict, code in (
        ((), "consistent", 0),
        ((good, good), "consistent", 0),
        ((good, unsure), "undecided", 3),
        ((unsure, bad, good), "damaged", 1),
        ((bad, unsure), "damaged", 1),
    ):
        report = Report(tuple(stores))
        assert (report.verdict, report.exit_code()) == (verdict, code)
    assert Report((unsure,)).exit_code("warning") == 3
    assert Report((store_with("consistent", finding("lag")),)).exit_code("warning") == 0
    assert Report((store_with("consistent", finding("lag")),)).exit_code("info") == 1
    assert Report((store_with("consistent", finding("file-oversized")),)).exit_code() == 0
    assert Report((store_with("consistent", finding("file-oversized")),)).exit_code("warning") == 1


def test_other_severities_make_another_report() -> None:
    report = reported("1.5.9-damaged-folder-older", Level.STANDARD)
    before = report.to_json()
    milder = report.with_severities({"records-missing": "info", "records-phantom": "info"})
    assert (report.exit_code(), milder.exit_code()) == (1, 0)
    assert report.to_json() == before
    assert milder.verdict == report.verdict == "damaged"
    assert {f.severity for f in milder.findings} == {"info"}


@pytest.mark.parametrize("nothing", [[], (), iter(())])
def test_an_empty_list_of_collections_is_no_clean_bill(
    nothing: Iterable[str], tmp_path: Path
) -> None:
    with pytest.raises(hnswcheck.UsageError, match="list of collections is empty"):
        hnswcheck.audit(unpack(SOUND, tmp_path), collections=nothing)


@pytest.mark.parametrize("name", [SOUND, "1.5.9-damaged-folder-older"])
def test_a_folder_large_enough_for_a_thread_is_judged_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = unpack(name, tmp_path)
    alone = hnswcheck.audit(store).stores[0].segments
    monkeypatch.setattr("hnswcheck.auditing.standard.WORTH_A_THREAD", 0)
    monkeypatch.setattr("hnswcheck.store.record_ids.PAGE_RECORDS", 10)
    assert hnswcheck.audit(store).stores[0].segments == alone


def test_what_a_signal_handler_raises_comes_out_of_an_audit(tmp_path: Path) -> None:
    """sqlite3 drops what is raised while a statement runs, and says only that it was stopped."""

    class TimeIsUp(Exception):
        pass

    def handler(number: int, frame: object) -> None:
        raise TimeIsUp

    store = unpack(SOUND, tmp_path)
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database, database:
        database.execute(
            "INSERT INTO embeddings (segment_id, embedding_id, seq_id)"
            " WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)"
            " SELECT 'none', i, 1 FROM n"
        )
    before = signal.signal(signal.SIGALRM, handler)
    raised = 0
    try:
        for delay in range(1, 40):
            try:
                signal.setitimer(signal.ITIMER_REAL, delay / 1000)
                report = hnswcheck.audit(store, "probe")
                signal.setitimer(signal.ITIMER_REAL, 0)
                assert report.verdict == "consistent"
            except TimeIsUp:
                raised += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert raised > 10
