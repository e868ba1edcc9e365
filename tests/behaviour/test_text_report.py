"""The report for a person: 80 columns, whole numbers, and what to do said once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from stores import LAGGING, rest, run, unpack, unwrapped
from synthetic import missing_after_the_first, sound_collection, write_store

from hnswcheck import Report, audit
from hnswcheck.cli import layout, render_report, terminal
from hnswcheck.report import Pending
from hnswcheck.store_findings import KEEP, NOTHING


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store that tests only read."""
    root = tmp_path_factory.mktemp("stores")
    unpack(LAGGING, root)
    return root


@pytest.mark.parametrize("columns", ["20", "80", "200"])
def test_text_in_a_pipe_has_no_colours_and_fits_into_80_columns(
    columns: str, tmp_path: Path
) -> None:
    store = tmp_path / ("p" * 120)
    spec = replace(missing_after_the_first(30, "x" * 60), name="n" * 500, tenant="日本 " * 99)
    write_store(store, [spec])
    rest(store)
    done = run("audit", store, env={"COLUMNS": columns, "TERM": "xterm-256color"})
    assert done.returncode == 1
    assert "\x1b" not in done.stdout
    lines = done.stdout.splitlines()
    assert str(store) in lines  # a path can be copied
    assert max(cell_len(line) for line in lines if str(store) not in line) <= 80
    assert lines[-1].startswith(f"damaged: {store}: ")
    assert unwrapped(done.stdout).count("x" * 60) == 20


@pytest.mark.parametrize("number", [0, 7, 999_999, 1_000_000_000])
def test_numbers_up_to_a_billion_keep_the_columns_of_the_ledger(number: int, kept: Path) -> None:
    (store,) = audit(kept / LAGGING).stores
    (segment,) = store.segments
    operations = Pending(number, number, number, number + 1)
    sides = dict.fromkeys(("records", "index_ids"), number)
    after = {f"{name}_after_replay": number for name in sides}
    ledger = replace(segment.ledger, pending=operations, **sides, **after)
    report = Report((replace(store, segments=(replace(segment, ledger=ledger),)),))
    page = terminal.page(render_report.lines(report), colours=False)
    rows = [line for line in page.splitlines() if re.match(" +(sqlite|on disk|in the|after)", line)]
    assert [re.split(" {2,}", row.strip())[:3] for row in rows[1:]] == [
        ["on disk", f"{number:,}", f"{number:,}"],
        ["in the WAL", "+0", "+0"],
        ["after replay", f"{number:,}", f"{number:,}"],
    ]
    ends = [[m.end() for m in re.finditer(r"\S+", row)] for row in rows]
    assert [row[2:4] for row in (ends[1], ends[3])] == [ends[0], ends[0]]
    assert f"{4 * number + 1:,} operation" in page
    assert max(map(cell_len, page.splitlines()[1:-1])) <= 80


def test_a_remedy_is_said_once_however_many_findings_have_it(tmp_path: Path) -> None:
    store = tmp_path / "store"
    written = write_store(store, [sound_collection(name, 30, 4) for name in ("one", "two", "six")])
    for each, name in zip(written, ("header.bin", "data_level0.bin", "header.bin"), strict=True):
        (each.folder / name).write_bytes(b"")
    rest(store)
    done = run("audit", store)
    text = unwrapped(done.stdout)
    remedies = {found.remedy for found in audit(store).findings if found.severity != "info"}
    for remedy in remedies - {NOTHING}:
        step = remedy.replace(KEEP, "").strip()
        assert text.count(step) == 1, step
    assert text.count(KEEP) == 1
    numbers = re.findall(r"^ {4}(\d+)\. ", done.stdout, re.MULTILINE)
    assert numbers == [str(n + 1) for n in range(len(numbers))]


def test_places_of_links_are_grouped_by_level(tmp_path: Path) -> None:
    store = unpack("1.5.9-damaged-count-too-small", tmp_path)
    text = unwrapped(run("audit", store).stdout)
    (links,) = [f for f in audit(store).findings if f.id == "neighbour-out-of-range"]
    assert len(links.sample) == 20
    assert links.sample[0] not in text
    places = [re.findall(r"\d+", place) for place in links.sample]
    first = [element for element, level in places if level == places[0][1]]
    assert f"level {places[0][1]} of elements {', '.join(first)}" in text
    assert re.search(r"found affected elements: [\d,]+ Chroma: ", text)


def test_an_id_that_looks_like_a_place_is_still_an_id(tmp_path: Path) -> None:
    write_store(tmp_path / "store", [missing_after_the_first(3, "element 3, level 0")])
    rest(tmp_path / "store")
    assert "element 3, level 0-0000, element 3, level 0-0001" in unwrapped(
        run("audit", tmp_path / "store").stdout
    )


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert layout.shortened("a" * 70) == "a" * 70
    short = layout.shortened("begin" + "日" * 70 + "end")
    assert short.startswith("begin日")
    assert short.endswith("日end")
    assert "..." in short
    assert cell_len(short) <= 70
    assert layout.foreign("a\x1b[31m " + "b" * 71).startswith(r"a\x1b[31m bbb")


def test_a_page_of_many_collections_is_quick_to_read(tmp_path: Path) -> None:
    """Each has its own lines, and what to do stands once for all of them."""
    names = [f"collection-{number:03}" for number in range(60)]
    for each in write_store(tmp_path / "store", [sound_collection(n, 10, 2) for n in names]):
        (each.folder / "header.bin").unlink()
    rest(tmp_path / "store")
    text = run("audit", tmp_path / "store").stdout
    assert re.findall(r"^  (collection-\d+) ", text, re.MULTILINE) == names
    assert text.count("What to do now") == 1
    assert text.count(" 2.  file-missing: ") == 1
