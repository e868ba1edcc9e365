"""The table of effects, row by row, against the engine of each line of releases.

A store is made and flushed by a version. Rows are then written into its log as they are, also such
as no client writes, and the version opens the store again: what it now has of each id, in sqlite
and in the index, has to be what the table says.
"""

from __future__ import annotations

import functools
import json
import shutil
import sqlite3
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from environments import VERSIONS, python_of
from stores import SUPPORT

from hnswcheck.formats.header import parse_header
from hnswcheck.formats.id_map import decode_id_map
from hnswcheck.formats.level0 import TOMBSTONE, element_dtype
from hnswcheck.replay.effects import (
    Effect,
    Element,
    effect_on_element,
    effect_on_index,
    effect_on_record,
)
from hnswcheck.store.releases import release_for
from hnswcheck.store.wal import OPERATIONS, Operation, WalRow

pytestmark = pytest.mark.usefixtures("chroma")

WORKER = SUPPORT / "effects_worker.py"
DATABASE = "chroma.sqlite3"
#: Seconds that a slow machine may take to import chromadb and open a store.
TIME_LIMIT = 300
#: What the vector of a row is told by.
OF_ROW, OF_SECOND_ROW = 1000, 2000

each_line = pytest.mark.parametrize("line", VERSIONS)


@dataclass(frozen=True, slots=True)
class Case:
    """A row of the log, and whether its id is there."""

    operation: Operation
    exists: bool
    has_vector: bool

    @property
    def id(self) -> str:
        """One that no other case has."""
        there = "there" if self.exists else "absent"
        return f"{self.operation}-{there}-{'vector' if self.has_vector else 'none'}"

    @property
    def row(self) -> WalRow:
        return WalRow(
            seq_id=1,
            operation=self.operation,
            id=self.id.encode(),
            vector_bytes=12 if self.has_vector else None,
        )


CASES = [
    Case(operation, exists, has_vector)
    for operation in OPERATIONS
    for exists in (True, False)
    for has_vector in (True, False)
    if not (operation == "delete" and has_vector)
]
#: Ids that are there before, each with the number of its vector; they fill a flush.
THERE = [case.id for case in CASES if case.exists]
FLUSHED = [(id, number) for number, id in enumerate([*THERE, "spare", "donor", "other"], 1)]
#: Added when all is flushed: a row that no purge takes, and that knows the name of the topic.
PENDING = ("last", 500)
#: Later rows, which let 0.x apply its batch.
FILLERS: list[Written] = [("add", f"filler{n}", 600.0 + n) for n in range(6)]

#: An operation, or the code of one that Chroma lacks; an id; the number of a vector.
Written = tuple[Operation | int, str, float | None]


def run(version: str, *arguments: str, given: object = None) -> str:
    command = [python_of(version), str(WORKER), *arguments]
    done = subprocess.run(
        command, input=json.dumps(given), text=True, capture_output=True, timeout=TIME_LIMIT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@functools.cache
def made(line: str) -> Path:
    """The store before the rows."""
    home = Path(tempfile.mkdtemp(prefix="effects"))
    assert len(FLUSHED) == 10
    run(VERSIONS[line], "make", str(home / "store"), given=[*FLUSHED, PENDING])
    return home / "store"


@pytest.fixture(scope="module", autouse=True)
def _clean() -> Any:
    yield
    for line in VERSIONS:
        if made.cache_info().currsize:
            try:
                shutil.rmtree(made(line).parent, ignore_errors=True)
            except pytest.skip.Exception:
                continue


def write(store: Path, rows: Sequence[Written]) -> None:
    """Append rows to the log."""
    codes: dict[Operation | int, int] = {name: code for code, name in enumerate(OPERATIONS)}
    with closing(sqlite3.connect(store / DATABASE)) as database, database:
        ((topic,),) = database.execute("SELECT DISTINCT topic FROM embeddings_queue").fetchall()
        for operation, id, number in rows:
            vector = None if number is None else struct.pack("<3f", number, 0.0, 0.0)
            encoding = None if number is None else "FLOAT32"
            database.execute(
                "INSERT INTO embeddings_queue (operation, topic, id, vector, encoding)"
                " VALUES (?, ?, ?, ?, ?)",
                (codes.get(operation, operation), topic, id, vector, encoding),
            )


def answer(
    line: str,
    place: Path,
    rows: Sequence[Written],
    damage: Callable[[Path], None] = lambda _: None,
    results: int = 0,
) -> dict[str, Any]:
    """What the version has once it has replayed some rows, or its error.

    Args:
        results: how many ids of the index are asked for, those with the largest numbers; 0 for all.
    """
    store = shutil.copytree(made(line), place / "store")
    damage(store)
    write(store, [*rows, *FILLERS])
    found: dict[str, Any] = json.loads(
        run(VERSIONS[line], "read", str(store), str(results)).splitlines()[-1]
    )
    return found


def fails(line: str, place: Path, rows: Sequence[Written], damage: Any = lambda _: None) -> bool:
    return "error" in answer(line, place, rows, damage)


def rows_of(*cases: Case) -> list[Written]:
    return [(c.operation, c.id, float(OF_ROW) if c.has_vector else None) for c in cases]


@each_line
def test_the_engine_does_to_records_and_index_what_the_table_says(
    line: str, tmp_path: Path
) -> None:
    release = release_for(VERSIONS[line])
    effects = {case: effect_on_index(case.row, case.exists, release) for case in CASES}
    readable = [case for case in CASES if effects[case] is not Effect.FAILS]
    found = answer(line, tmp_path, rows_of(*readable))
    assert "error" not in found, found
    records, index, before = set(found["records"]), found["index"], dict(FLUSHED)
    for case in readable:
        match effect_on_record(case.row, case.exists):
            case Effect.CREATES | Effect.CHANGES:
                assert case.id in records, case
            case Effect.DELETES:
                assert case.id not in records, case
            case effect:
                assert effect is Effect.IGNORED
                assert (case.id in records) is case.exists, case
        match effects[case]:
            case Effect.CREATES | Effect.WRITES:
                assert index.get(case.id) == OF_ROW, case
            case Effect.DELETES:
                assert case.id not in index, case
            case Effect.IGNORED:
                assert index.get(case.id) == before.get(case.id), case
            case effect:
                assert effect is Effect.DISPUTED
                assert index.get(case.id) in (before[case.id], OF_ROW), case


@each_line
def test_the_engine_stops_where_the_table_says_so(line: str, tmp_path: Path) -> None:
    cases = [
        c
        for c in CASES
        if effect_on_index(c.row, c.exists, release_for(VERSIONS[line])) is Effect.FAILS
    ]
    assert bool(cases) is release_for(VERSIONS[line]).index_needs_vectors
    for number, case in enumerate(cases):
        assert fails(line, tmp_path / str(number), rows_of(case)), case


@each_line
def test_the_engine_stops_at_an_operation_that_it_does_not_know(line: str, tmp_path: Path) -> None:
    unknown = WalRow(seq_id=1, operation=None, id=b"other", vector_bytes=12)
    assert effect_on_index(unknown, True, release_for(VERSIONS[line])) is Effect.UNKNOWN
    assert fails(line, tmp_path, [(7, "other", float(OF_ROW))])


@each_line
def test_an_add_of_an_id_that_is_there_is_ignored_by_the_index_where_the_table_says_so(
    line: str, tmp_path: Path
) -> None:
    """0.4 drops an add whose batch deletes the id, and takes the next one; 0.5 and 0.6 do not."""
    rows: list[Written] = [
        ("delete", "other", None),
        ("add", "other", OF_ROW),
        *(("add", f"between{n}", 700.0 + n) for n in range(5)),
        ("add", "other", OF_SECOND_ROW),
    ]
    found = answer(line, tmp_path, rows)
    assert found["records"].count("other") == 1
    served = found["index"]["other"]
    assert served == (OF_SECOND_ROW if line == "0.4" else OF_ROW)
    last = effect_on_index(
        WalRow(seq_id=3, operation="add", id=b"other", vector_bytes=12),
        True,
        release_for(VERSIONS[line]),
    )
    allowed = {Effect.IGNORED: {OF_ROW}, Effect.DISPUTED: {OF_ROW, OF_SECOND_ROW}}
    assert served in allowed[last]


# --- Elements ------------------------------------------------------------------------------------


def change_element(store: Path, id: str, label: int | None, *, tombstone: bool) -> None:
    """Give the element of an id another label, or a delete mark."""
    (folder,) = (path.parent for path in store.glob("*/header.bin"))
    dtype = element_dtype(parse_header((folder / "header.bin").read_bytes()[:100]))
    id_map = decode_id_map((folder / "index_metadata.pickle").read_bytes())
    pairs = id_map.id_to_label
    wanted = dict(zip(pairs.ids, pairs.labels.tolist(), strict=True))[id.encode()]
    assert dtype.fields is not None
    content = bytearray((folder / "data_level0.bin").read_bytes())
    for start in range(0, len(FLUSHED) * dtype.itemsize, dtype.itemsize):
        at = start + dtype.fields["label"][1]
        if int.from_bytes(content[at : at + 8], "little") == wanted:
            content[at : at + 8] = (label or wanted).to_bytes(8, "little")
            content[start + dtype.fields["flags"][1]] |= TOMBSTONE if tombstone else 0
            break
    else:
        raise AssertionError(f"{id} has no element")
    (folder / "data_level0.bin").write_bytes(content)


def mark(store: Path) -> None:
    change_element(store, "spare", None, tombstone=True)


def take_away(store: Path) -> None:
    """A label that no element has; the element that had it is dead under another one."""
    change_element(store, "spare", 999, tombstone=True)


def hand_out_before(store: Path) -> None:
    """A dead element has the label that comes next but one: first the pending row gets one."""
    change_element(store, "donor", len(FLUSHED) + 2, tombstone=True)


@each_line
@pytest.mark.parametrize(
    ("damage", "element", "operation", "id", "results"),
    [
        (mark, Element.DELETED, "upsert", "spare", 0),
        (mark, Element.DELETED, "delete", "spare", 0),
        (take_away, Element.ABSENT, "upsert", "spare", 0),
        (take_away, Element.ABSENT, "delete", "spare", 0),
        (hand_out_before, Element.DELETED, "add", "new", 3),
    ],
)
def test_the_engine_does_to_an_element_what_the_table_says(
    line: str,
    damage: Callable[[Path], None],
    element: Element,
    operation: Operation,
    id: str,
    results: int,
    tmp_path: Path,
) -> None:
    release = release_for(VERSIONS[line])
    one = WalRow(
        seq_id=1,
        operation=operation,
        id=id.encode(),
        vector_bytes=None if operation == "delete" else 12,
    )
    effect = effect_on_element(effect_on_index(one, id != "new", release), element, release)
    rows: list[Written] = [(operation, id, OF_ROW if one.vector_bytes else None)]
    found = answer(line, tmp_path, rows, damage, results)
    match effect:
        case Effect.FAILS:
            assert "error" in found
        case Effect.CREATES | Effect.WRITES:
            assert found["index"].get(id) == OF_ROW, found
        case _:
            raise AssertionError(f"no case is {effect}")
