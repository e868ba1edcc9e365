"""What is left of a collection can be taken elsewhere, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import one_line, rest, run, segment_folders, snapshot, unpack

import hnswcheck
from hnswcheck.salvaging.rows import Page, rows_of
from hnswcheck.store.database import DATABASE

LOSSY = "1.5.9-damaged-folder-older"  # 88 records, the vectors of 34 are nowhere


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    """Every other record has a document."""
    store = unpack(LOSSY, tmp_path)
    with contextlib.closing(sqlite3.connect(store / DATABASE)) as database, database:
        database.execute("DELETE FROM embedding_metadata WHERE key = 'chroma:document'")
        database.execute(
            "INSERT INTO embedding_metadata (id, key, string_value)"
            " SELECT id, 'chroma:document', 'dé ' || id FROM embeddings WHERE id % 2"
        )
    return rest(store)


def parts(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if "out" in path.name)


@pytest.mark.parametrize("group", [1, 1 << 25])
def test_parquet_holds_the_same_as_the_other_files(
    group: int, lossy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("hnswcheck.salvaging.parquet.GROUP_BYTES", group)
    monkeypatch.setattr("hnswcheck.salvaging.rows.PAGE_DOCUMENTS", 20)
    before = snapshot(lossy)
    made = hnswcheck.salvage(lossy, "docs", tmp_path / "out.parquet")
    both = hnswcheck.salvage(lossy, "docs", tmp_path / "out")
    assert snapshot(lossy) == before
    assert made.vectors == made.lines == tmp_path / "out.parquet"
    assert made.grades == both.grades
    assert made.grades["lost"] == 34
    assert parts(tmp_path) == ["out.jsonl", "out.npz", "out.parquet"]

    file = parquet.ParquetFile(made.vectors)
    assert file.num_row_groups == (5 if group == 1 else 1)
    table = file.read()
    string = pyarrow.string()
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {
        "id": string,
        "vector": pyarrow.list_(pyarrow.float32(), 8),
        "grade": string,
        "reason": string,
        "source": string,
        "document": string,
        "metadata": string,
    }
    rows = table.to_pylist()
    lines = [json.loads(line) for line in both.lines.read_text("utf-8").splitlines()]
    for row, line in zip(rows, lines, strict=True):
        assert json.loads(row.pop("metadata")) == line.pop("metadata")
        vector = row.pop("vector")
        assert (vector is None) == (row["grade"] == "lost")
        assert row == line
    assert {row["document"] is None for row in rows} == {True, False}
    with np.load(both.vectors) as arrays:
        expected = arrays["vectors"]
    vectors = table["vector"].to_pylist()
    found = np.array([v or [np.nan] * 8 for v in vectors], np.float32)
    assert np.array_equal(found, expected, equal_nan=True)


def test_without_pyarrow_one_line_names_the_extra(
    lossy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(hnswcheck.ExtraMissing, match=r"hnswcheck\[parquet\]") as raised:
        hnswcheck.salvage(tmp_path / "nowhere", "docs", tmp_path / "out.parquet")
    assert "\n" not in str(raised.value)
    assert parts(tmp_path) == []
    assert hnswcheck.salvage(lossy, "docs", tmp_path / "out").grades["lost"] == 34


@pytest.mark.parametrize("output", ["out", "out.parquet"])
def test_what_cannot_be_written_whole_leaves_what_was_there(
    output: str, lossy: Path, tmp_path: Path
) -> None:
    if output.endswith("parquet"):
        pytest.importorskip("pyarrow")
    arguments = ("salvage", lossy, "--collection", "docs", "-o", tmp_path / output)
    assert run(*arguments).returncode == 0
    before = {name: (tmp_path / name).read_bytes() for name in parts(tmp_path)}

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    failed = run(*arguments, preexec_fn=no_room)
    assert failed.returncode == 3
    assert "File too large" in one_line(failed.stderr)
    assert {name: (tmp_path / name).read_bytes() for name in parts(tmp_path)} == before


# --- What METADATA has yet to apply --------------------------------------------------------------

WRITE = """
import json, sys, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False))
docs = client.get_or_create_collection("docs", embedding_function=None)
for operation, arguments in json.loads(sys.argv[2]):
    getattr(docs, operation)(**arguments)
found = docs.get(include=["documents", "metadatas"])
records = zip(found["ids"], found["documents"], found["metadatas"])
print(json.dumps({i: [document, metadata or {}] for i, document, metadata in records}))
"""
RECORD_TABLES = ("embeddings", "embedding_metadata", "embedding_metadata_array")


def chroma(store: Path, *steps: tuple[str, dict[str, object]]) -> dict[str, object]:
    """Let it write, and say what it then has of each record."""
    command = [sys.executable, "-c", WRITE, str(store), json.dumps(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def written(ids: str, **more: object) -> dict[str, object]:
    return {"ids": list(ids), "embeddings": [[ord(i), 1.0] for i in ids], **more}


@pytest.mark.usefixtures("chroma")
def test_documents_that_are_only_in_the_log_are_exported(tmp_path: Path) -> None:
    store, earlier = tmp_path / "store", tmp_path / "earlier"
    plain = [{"n": 1, "gone": True}, {"x": 1.5}, {"s": "text"}, {"n": 4}, {"n": 5}]
    chroma(store, ("add", written("abcde", documents=list("ABCDE"), metadatas=plain)))
    shutil.copytree(store, earlier)
    expected = chroma(
        store,
        ("update", {"ids": ["a"], "metadatas": [{"gone": None, "new": [1, 2]}]}),
        ("upsert", written("bf", documents=["b2", "f"], metadatas=[{"y": 2}, {"list": ["p"]}])),
        ("add", written("ag", documents=["not this", None], metadatas=[{"n": 9}, {"g": False}])),
        ("delete", {"ids": ["c", "d"]}),
        ("add", written("d", documents=["d again"])),
        ("update", written("h", documents=["was never there"])),
        ("add", written("h")),
    )
    with contextlib.closing(sqlite3.connect(store / DATABASE)) as database, database:
        database.execute("ATTACH ? AS earlier", (str(earlier / DATABASE),))
        for table in RECORD_TABLES:
            database.execute(f"DELETE FROM {table}")
            database.execute(f"INSERT INTO {table} SELECT * FROM earlier.{table}")
        database.execute("DELETE FROM max_seq_id")
        database.execute("INSERT INTO max_seq_id SELECT * FROM earlier.max_seq_id")
        database.execute("DELETE FROM embedding_fulltext_search")
        database.execute(
            "INSERT INTO embedding_fulltext_search (rowid, string_value)"
            " SELECT rowid, string_value FROM earlier.embedding_fulltext_search"
        )
    made = hnswcheck.salvage(rest(store), "docs", tmp_path / "out")
    lines = [json.loads(line) for line in made.lines.read_text("utf-8").splitlines()]
    assert chroma(store) == expected  # as it replays the log
    assert {line["id"]: [line["document"], line["metadata"]] for line in lines} == expected
    assert sorted(expected) == list("abdefgh")
    assert made.grades == {"proven": 7}


def test_what_is_written_while_it_is_read_is_not_exported(
    lossy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows_while_written(*arguments: Any) -> Iterator[Page]:
        (folder,) = segment_folders(lossy)
        (folder / "length.bin").write_bytes(b"")
        return rows_of(*arguments)

    monkeypatch.setattr("hnswcheck.salvaging.export.rows_of", rows_while_written)
    with pytest.raises(hnswcheck.StoreChanged, match="written while it was read"):
        hnswcheck.salvage(lossy, "docs", tmp_path / "out")
    assert parts(tmp_path) == []


@pytest.mark.parametrize("damage", ["vector = NULL", "vector = x'0000000000'", "operation = 7"])
def test_a_vector_that_the_log_lacks_is_proven_by_no_row_whose_metadata_is_damaged_too(
    damage: str, tmp_path: Path
) -> None:
    store = unpack("1.5.9-churn-l2", tmp_path)
    for folder in segment_folders(store):
        shutil.rmtree(folder)
    with contextlib.closing(sqlite3.connect(store / DATABASE)) as database, database:
        added = "SELECT max(seq_id) FROM embeddings_queue WHERE operation = 0"
        ((id,),) = database.execute(
            f"UPDATE embeddings_queue SET {damage}, metadata = '[]' WHERE seq_id = ({added})"
            " RETURNING id"
        ).fetchall()
    rest(store)
    found = hnswcheck.salvage(store, "docs", tmp_path / "out")
    lines = [json.loads(line) for line in found.lines.read_text("utf-8").splitlines()]
    assert [line["grade"] for line in lines if line["id"] == id] == ["lost"]
    assert found.grades["proven"] == 31
