"""What is left of a collection can be taken elsewhere, whole or not at all."""

from __future__ import annotations

import contextlib
import json
import resource
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import one_line, rest, run, snapshot, unpack

import hnswcheck
from hnswcheck.disk.database import DATABASE

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
    monkeypatch.setattr("hnswcheck.actions.parquet.GROUP_BYTES", group)
    monkeypatch.setattr("hnswcheck.actions.rows.PAGE_DOCUMENTS", 20)
    before = snapshot(lossy)
    made = hnswcheck.export(lossy, "docs", tmp_path / "out.parquet")
    both = hnswcheck.export(lossy, "docs", tmp_path / "out")
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
        hnswcheck.export(tmp_path / "nowhere", "docs", tmp_path / "out.parquet")
    assert "\n" not in str(raised.value)
    assert parts(tmp_path) == []
    assert hnswcheck.export(lossy, "docs", tmp_path / "out").grades["lost"] == 34


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
