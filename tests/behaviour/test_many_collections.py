"""What is asked of sqlite does not grow with the number of collections."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from stores import rest
from synthetic import CollectionSpec, Op, Segment, Skeleton, WalRow, write_store

import hnswcheck
from hnswcheck.store.database import Database, Row

FEW, MANY = 20, 2000


def small_collections(count: int) -> Iterator[CollectionSpec]:
    """Flushed ones, lagging ones, ones that were never flushed or never written to."""
    for number in range(count):
        first = 10 * number + 1
        ids = [f"{number}-{each}" for each in range(3)]
        records = list(zip(ids, range(first, first + 3), strict=True))
        wal = [
            WalRow(seq_id=at, op=Op.ADD, id=id, vector=[0.5, float(number)]) for id, at in records
        ]
        name = f"collection-{number:04}"
        match number % 4:
            case 0:
                yield CollectionSpec(
                    name=name,
                    segment=Segment(dimension=2, ids=ids),
                    records=records,
                    wal=wal[-1:],
                    watermark=first + 2,
                    metadata_watermark=first + 2,
                )
            case 1:
                yield CollectionSpec(
                    name=name,
                    segment=Segment(dimension=2, ids=ids[:2]),
                    records=records,
                    wal=wal[1:],
                    watermark=first + 1,
                    metadata_watermark=first + 2,
                )
            case 2:
                yield CollectionSpec(
                    name=name,
                    segment=Skeleton(dimension=2),
                    records=records,
                    wal=wal,
                    metadata_watermark=first + 2,
                )
            case _:
                yield CollectionSpec(name=name, dimension=2)


@pytest.fixture(scope="module", params=["probe", "standard"])
def level(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Stores by their number of collections."""
    root = tmp_path_factory.mktemp("many")
    for count in (FEW, MANY):
        write_store(root / str(count), small_collections(count))
    return {count: rest(root / str(count)) for count in (FEW, MANY)}


@dataclass(frozen=True, slots=True)
class Audited:
    """A report, and what sqlite was asked for it."""

    report: hnswcheck.Report
    statements: Counter[str]


@contextmanager
def statements_counted() -> Iterator[Counter[str]]:
    """What sqlite is asked within, and how often."""
    statements: Counter[str] = Counter()
    rows = Database.rows

    def counted(self: Database, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        statements[re.sub(r"\s+", " ", sql)] += 1
        return rows(self, sql, parameters)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Database, "rows", counted)
        yield statements


@pytest.fixture(scope="module")
def audited(level: str, stores: dict[int, Path]) -> dict[int, Audited]:
    """Each store audited, by its number of collections."""
    results = {}
    for count, store in stores.items():
        with statements_counted() as statements:
            report = hnswcheck.audit(store, level)
        results[count] = Audited(report, statements)
    return results


def test_the_number_of_statements_does_not_grow(audited: dict[int, Audited]) -> None:
    # Every page of records or log is one statement; both stores fit into one page.
    assert audited[MANY].statements == audited[FEW].statements
    assert 5 < audited[FEW].statements.total() < 60


def test_all_of_many_collections_are_judged(audited: dict[int, Audited]) -> None:
    report = audited[MANY].report
    assert report.verdict == "consistent"
    assert {found.id for found in report.findings} == {"lag"}
    statuses = Counter(segment.status for segment in report.stores[0].segments)
    assert statuses == {"consistent": MANY // 4, "lagging": MANY // 2, "empty": MANY // 4}


def test_one_of_many_is_named(stores: dict[int, Path]) -> None:
    report = hnswcheck.audit(stores[MANY], collections=["collection-1001"])
    (segment,) = report.stores[0].segments
    assert (segment.collection.name, segment.status) == ("collection-1001", "lagging")
    assert segment.ledger.records == segment.ledger.records_after_replay == 3


def test_one_damaged_among_many_is_found(tmp_path: Path) -> None:
    written = write_store(tmp_path / "store", small_collections(200))
    damaged = written[40]
    (damaged.folder / "data_level0.bin").write_bytes(b"")
    (store,) = hnswcheck.audit(tmp_path / "store").stores
    bad = [s for s in store.segments if s.status not in ("consistent", "lagging", "empty")]
    assert [(s.collection.id, s.status) for s in bad] == [(damaged.collection, "corrupt")]
    assert len(store.segments) == 200


def test_many_damaged_ones_share_one_reading_of_the_log(tmp_path: Path) -> None:
    """Of each only its own records are read once more."""

    def statements(count: int) -> Counter[str]:
        written = write_store(tmp_path / str(count), small_collections(count))
        for one in written:
            if one.folder.exists():
                shutil.rmtree(one.folder)
        with statements_counted() as seen:
            (store,) = hnswcheck.audit(tmp_path / str(count)).stores
        bad = [s for s in store.segments if s.status == "corrupt"]
        assert len(bad) == count // 2  # the others were never flushed
        by_id = [sql for sql in seen if "json_each" in sql and "embeddings_queue" not in sql]
        own = [sql for sql in seen if "AS c0 FROM embeddings" in sql] + by_id
        assert [seen.pop(sql) for sql in own] == [len(bad)] * 2
        return seen

    assert statements(200) == statements(20)
