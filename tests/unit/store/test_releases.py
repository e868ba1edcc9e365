"""The table of releases against stores that the releases themselves wrote.

A fixture is named after the version that wrote it. What it shows of a fact is read here in other
ways than the package reads it, wherever there are others.
"""

from __future__ import annotations

import functools
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from environments import VERSIONS
from stores import NAMES, unpack

from hnswcheck.formats.header import Header, parse_header
from hnswcheck.formats.id_map import IdMap, decode_id_map
from hnswcheck.formats.link_lists import read_link_lists
from hnswcheck.repairing.build_index import build_segment
from hnswcheck.repairing.index_settings import IndexSettings
from hnswcheck.store.database import connect
from hnswcheck.store.releases import (
    RELEASES,
    STEPS,
    Release,
    is_of_line,
    numbers_of,
    release_for,
    release_of,
    step_of,
)
from hnswcheck.store.schema import read_schema

#: Fixtures that show more than what one release does when nothing goes wrong.
OTHERS = ("damaged", "upgraded", "killed", "interrupted", "two-writers", "wedged")

each_line = pytest.mark.parametrize("line", VERSIONS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A segment folder, and what sqlite has of its collection.

    Attributes:
        recorded: ids of its records, in the order of their rows.
        watermark: type of VECTOR's row in ``max_seq_id``; None where it has none.
        levels: how many elements have how many upper levels.
    """

    header: Header
    id_map: IdMap | None
    recorded: tuple[bytes, ...]
    watermark: str | None
    levels: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A store as a version wrote it.

    Attributes:
        types: of the seq_ids in ``max_seq_id`` and ``embeddings``.
    """

    migrations: Mapping[str, int]
    types: frozenset[str]
    folders: tuple[Folder, ...]
    release: Release


SEGMENTS = """
SELECT v.id, m.id FROM segments v JOIN segments m USING (collection)
WHERE v.scope = 'VECTOR' AND m.scope = 'METADATA'
"""


@functools.cache
def written(line: str) -> Mapping[str, Written]:
    """The undamaged fixtures of a line, by what follows the version in their names."""
    prefix = VERSIONS[line] + "-"
    names = [n for n in NAMES if n.startswith(prefix) and not any(o in n for o in OTHERS)]
    with tempfile.TemporaryDirectory() as home:
        return {n.removeprefix(prefix): read(unpack(n, Path(home))) for n in names}


def read(store: Path) -> Written:
    with closing(sqlite3.connect(store / "chroma.sqlite3")) as database:
        ask = database.execute
        migrations = dict(ask("SELECT dir, max(version) FROM migrations GROUP BY dir"))
        types = ask(
            "SELECT typeof(seq_id) FROM max_seq_id UNION SELECT typeof(seq_id) FROM embeddings"
        )
        seen = frozenset(name for (name,) in types)
        pairs = [p for p in ask(SEGMENTS) if (store / p[0] / "header.bin").exists()]
        folders = tuple(read_folder(store / v, database, m) for v, m in pairs)
    with closing(connect(store / "chroma.sqlite3", "ro")) as opened:
        release = read_schema(opened).writer
    return Written(migrations=migrations, types=seen, folders=folders, release=release)


def read_folder(folder: Path, database: sqlite3.Connection, metadata: str) -> Folder:
    header = parse_header((folder / "header.bin").read_bytes()[:100])
    id_map = folder / "index_metadata.pickle"
    marks = database.execute(
        "SELECT typeof(seq_id) FROM max_seq_id WHERE segment_id = ?", (folder.name,)
    )
    records = database.execute(
        "SELECT CAST(embedding_id AS BLOB) FROM embeddings WHERE segment_id = ? ORDER BY id",
        (metadata,),
    )
    return Folder(
        header=header,
        id_map=decode_id_map(id_map.read_bytes()) if id_map.exists() else None,
        recorded=tuple(one for (one,) in records),
        watermark=next((one for (one,) in marks), None),
        levels=levels_of(folder / "link_lists.bin", header),
    )


def levels_of(links: Path, header: Header) -> Mapping[int, int]:
    return Counter(read_link_lists(links, header).levels.tolist())


def folders(line: str) -> list[Folder]:
    return [folder for store in written(line).values() for folder in store.folders]


def id_maps(line: str) -> list[tuple[Folder, IdMap]]:
    return [(f, f.id_map) for f in folders(line) if f.id_map is not None]


@each_line
def test_a_store_is_known_by_its_migrations(line: str) -> None:
    """Of lines with the same migrations it goes by the newest."""
    for name, store in written(line).items():
        step = step_of(store.migrations)
        assert store.migrations == step.migrations, name
        assert numbers_of(step.first) <= numbers_of(VERSIONS[line]) <= numbers_of(step.last), name
        assert store.release is release_for(step.last), name


def test_migrations_cut_short_leave_the_line_that_the_records_are_of() -> None:
    """Chroma migrates the log first, then sysdb, then metadb with the type of all seq_ids."""
    for log, sysdb, metadb, line in (
        (0, 0, 0, "0.4"),
        (1, 3, 1, "0.4"),
        (1, 5, 3, "0.5.3"),
        (1, 7, 3, "0.5.5"),
        (2, 7, 3, "0.5.5"),
        (2, 9, 3, "0.5.5"),
        (2, 9, 4, "0.6"),
        (2, 10, 4, "0.6"),
        (2, 9, 5, "1.2"),
        (2, 10, 5, "1.4"),
        (2, 10, 6, "1.5"),
    ):
        migrations = {"embeddings_queue": log, "sysdb": sysdb, "metadb": metadb}
        assert release_of(migrations) is RELEASES[line], migrations


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("0.4", "0.4"), ("0.4.0", "0.4"), ("0.5.3", "0.5.3"), ("0.5.4", "0.5.5"), ("0.5.6", "0.6"),
        ("0.5", "0.6"), ("0.6", "0.6"), ("1.0.20", "1.0"), ("1.0.21", "1.2"), ("1.1", "1.2"),
        ("1.3.5", "1.3"), ("1.3.6", "1.4"), ("1", "1.5"), ("1.5.9", "1.5"), ("1.5.10", "1.5"),
    ],
)  # fmt: skip
def test_a_version_belongs_to_a_line(version: str, line: str) -> None:
    assert release_for(version) is RELEASES[line]


@pytest.mark.parametrize("version", ["", "0.3.29", "0.3", "one", "1.x", "-1", "1.5.9.1", "1..2"])
def test_what_is_no_version_belongs_to_none(version: str) -> None:
    with pytest.raises(ValueError, match="Chroma"):
        release_for(version)


def test_a_release_is_of_the_line_that_wrote_a_store() -> None:
    """All that have its migrations are, and all that behave like the newest of those."""
    old, new = STEPS[-4].migrations, STEPS[-3].migrations
    assert [STEPS[-4].name, STEPS[-3].name] == ["0.5.6 to 0.6.3", "1.0.0 to 1.2.2"]
    for version, of_old, of_new in (
        ("0.5.5", False, False),
        ("0.5.23", True, False),
        ("0.6.3", True, False),
        ("1.0.20", False, True),
        ("1.2.2", False, True),
        ("1.5.9", False, False),
        ("1.6.0.dev3", False, False),
    ):
        assert (is_of_line(version, old), is_of_line(version, new)) == (of_old, of_new), version


@each_line
def test_seq_ids_have_the_type_of_the_row(line: str) -> None:
    types = {kind for store in written(line).values() for kind in store.types}
    assert types == {release_for(VERSIONS[line]).watermark_type.lower()}


@each_line
def test_the_watermark_is_where_the_row_says(line: str) -> None:
    flushed = [(f, m) for f, m in id_maps(line) if m.id_to_label.labels.size]
    assert flushed
    in_sqlite = release_for(VERSIONS[line]).watermark_in == "sqlite"
    for folder, id_map in flushed:
        assert (folder.watermark is not None) is in_sqlite
        assert (id_map.max_seq_id is None) is in_sqlite


@each_line
def test_id_maps_have_the_shape_of_the_row(line: str) -> None:
    assert {id_map.shape for _, id_map in id_maps(line)} == {release_for(VERSIONS[line]).id_map}


@each_line
def test_a_new_index_has_the_rows_capacity_m_and_ef_construction(line: str) -> None:
    never_flushed = [f.header for f in written(line)["never-flushed"].folders]
    assert never_flushed
    for header in never_flushed:
        assert header.count == 0
        assert header.capacity == release_for(VERSIONS[line]).first_capacity
        assert (header.m, header.ef_construction) == (
            release_for(VERSIONS[line]).m,
            release_for(VERSIONS[line]).ef_construction,
        )


@each_line
def test_the_capacity_grows_as_the_row_says(line: str) -> None:
    """0.x resizes before a batch, for what is there and the batch: 1,050 elements by then."""
    release = release_for(VERSIONS[line])
    (grown,) = (f.header for f in written(line)["resized"].folders)
    assert grown.count == 1200
    at = 1050 if release.growth == "by a factor" else grown.count
    assert grown.capacity == release.capacity_for(at, release.resize_factor)


@each_line
def test_hnswlib_draws_the_levels_of_the_store_from_the_rows_seed(
    line: str, tmp_path: Path
) -> None:
    """In whatever order threads add the elements, as many of them get each level."""
    pytest.importorskip("hnswlib")
    (folder,) = written(line)["exactly-flushed"].folders
    count = folder.header.count
    settings = IndexSettings(
        space="l2", dimension=folder.header.dimension, line=release_for(VERSIONS[line]).line
    )
    vectors = np.random.default_rng(7).random((count, settings.dimension), np.float32)
    build_segment(
        tmp_path / "new",
        [vectors],
        [b"%d" % n for n in range(count)],
        settings,
        scratch=tmp_path / "scratch",
        seq_ids=np.arange(1, count + 1),
        max_seq_id=count,
    )
    assert len(folder.levels) > 1
    assert levels_of(tmp_path / "new" / "link_lists.bin", folder.header) == folder.levels


@each_line
def test_labels_follow_rows_where_the_row_says_so(line: str) -> None:
    ordered = []
    for folder, id_map in id_maps(line):
        pairs = id_map.id_to_label
        label = dict(zip(pairs.ids, pairs.labels.tolist(), strict=True))
        labels = [label[record] for record in folder.recorded if record in label]
        ordered.append(labels == sorted(labels))
    assert all(ordered) is release_for(VERSIONS[line]).labels_follow_rows


@each_line
def test_labels_are_counted_that_nobody_gets_where_the_row_says_so(line: str) -> None:
    stores = [s for name, s in written(line).items() if not name.startswith("emptied")]
    counted = [
        (folder.id_map.total_elements_added or 0) > folder.header.count
        for store in stores
        for folder in store.folders
        if folder.id_map is not None
    ]
    assert any(counted) is release_for(VERSIONS[line]).counts_readded


@each_line
def test_an_empty_id_map_starts_over_where_the_row_says_so(line: str) -> None:
    """The new index was written over the old files, whose elements the id map still counts."""
    if "emptied-and-refilled" not in written(line):
        pytest.skip("this version never flushes an empty id map")
    (folder,) = written(line)["emptied-and-refilled"].folders
    assert folder.id_map is not None
    assert not len(folder.id_map.id_to_label.ids)
    assert folder.id_map.total_elements_added == 100
    started_over = folder.header.count == 0
    assert started_over is release_for(VERSIONS[line]).empty_id_map_starts_over
