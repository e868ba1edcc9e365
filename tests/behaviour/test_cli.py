"""The command line: exit codes, one-line errors, and output that fits where it goes."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer
from stores import (
    DAMAGED,
    HOT_JOURNAL,
    LAGGING,
    ONLY_A_WARNING,
    PROGRAM,
    REPOSITORY,
    SOUND,
    environment,
    may_mount,
    one_line,
    rest,
    run,
    segment_folders,
    snapshot,
    unpack,
    unwrapped,
)
from synthetic import (
    CollectionSpec,
    Op,
    Segment,
    WalRow,
    missing_after_the_first,
    sound_collection,
    write_store,
)

from hnswcheck.cli import app as cli
from hnswcheck.findings import REGISTRY
from hnswcheck.kinds import SEVERITIES
from hnswcheck.report import json_schema
from hnswcheck.store_findings import KEEP

UNDECIDED = "1.5.9-damaged-schema-type-changed"
COUNTS_BALANCE = "1.5.9-damaged-counts-balance"
COMMANDS = (
    "audit", "diff", "quarantine", "restore", "repair", "salvage", "explain", "schema", "demo",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Done:
    """What a command said."""

    code: int
    out: str
    err: str

    @property
    def stores(self) -> list[dict[str, Any]]:
        """Of a JSON report, which is all that is on stdout."""
        report = json.loads(self.out)
        assert report["schema"] == "hnswcheck.report/1"
        stores: list[dict[str, Any]] = report["stores"]
        return stores


Call = Callable[..., Done]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process."""

    def run_here(*words: str | Path) -> Done:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return Done(code, *capsys.readouterr())

    return run_here


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with stores that tests only read."""
    root = tmp_path_factory.mktemp("stores")
    for name in (SOUND, LAGGING, DAMAGED, ONLY_A_WARNING, UNDECIDED, COUNTS_BALANCE):
        unpack(name, root)
    return root


# --- Wrong use -----------------------------------------------------------------------------------


def make_empty_directory(path: Path) -> None:
    path.mkdir()


def make_directory_of_others(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("hello")
    (path / "chroma.sqlite3.bak").write_text("hello")


def make_file(path: Path) -> None:
    path.write_text("hello")


def make_garbage_database(path: Path) -> None:
    path.mkdir()
    (path / "chroma.sqlite3").write_bytes(b"\xde\xad\xbe\xef" * 4096)


def make_zero_byte_database(path: Path) -> None:
    path.mkdir()
    (path / "chroma.sqlite3").touch()


def make_database_without_tables(path: Path) -> None:
    path.mkdir()
    with contextlib.closing(sqlite3.connect(path / "chroma.sqlite3")) as database:
        database.execute("PRAGMA user_version = 1")


def make_database_of_others(path: Path) -> None:
    path.mkdir()
    with contextlib.closing(sqlite3.connect(path / "chroma.sqlite3")) as database:
        database.execute("CREATE TABLE notes (text)")


def make_directory_for_a_database(path: Path) -> None:
    (path / "chroma.sqlite3").mkdir(parents=True)


def make_dangling_link(path: Path) -> None:
    path.symlink_to("nowhere")


def make_loop(path: Path) -> None:
    path.symlink_to(path.name)


def make_nothing(path: Path) -> None:
    pass


NOT_STORES: dict[Callable[[Path], None], str] = {
    make_nothing: "store-not-found",
    make_dangling_link: "store-not-found",
    make_loop: "store-not-found",
    make_file: "not-a-chroma-store",
    make_empty_directory: "not-a-chroma-store",
    make_directory_of_others: "not-a-chroma-store",
    make_garbage_database: "not-a-chroma-store",
    make_zero_byte_database: "not-a-chroma-store",
    make_database_without_tables: "not-a-chroma-store",
    make_database_of_others: "not-a-chroma-store",
    make_directory_for_a_database: "not-a-chroma-store",
}


@pytest.mark.parametrize("make", NOT_STORES, ids=lambda make: make.__name__)
def test_what_is_no_store_is_one_line_and_exit_code_2(
    make: Callable[[Path], None], call: Call, tmp_path: Path
) -> None:
    path = tmp_path / "place"
    make(path)
    before = snapshot(tmp_path)
    for level in ("probe", "standard"):
        done = call("audit", path, "--level", level)
        assert "place" in one_line(done.err)
        assert (done.code, done.out) == (2, "")
        done = call("audit", path, "--quiet", "--fail-on", "warning")
        assert (done.code, done.out) == (2, "")
    done = call("audit", path, "--format", "json")
    one_line(done.err)
    assert done.code == 2
    (found,) = done.stores
    assert [finding["id"] for finding in found["findings"]] == [NOT_STORES[make]]
    assert (found["verdict"], found["complete"]) == ("undecided", False)
    assert snapshot(tmp_path) == before


WRONG_WORDS: list[tuple[Sequence[str], str]] = [
    (["audit"], "PATH"),
    (["audit", "STORE", "--collection", "nope"], "nope"),
    (["audit", "STORE", "--collection", "docs", "--collection", "nope"], "nope"),
    (["audit", "STORE", "--collection", ""], "collection"),
    (["audit", "STORE", "--collection"], "--collection"),
    (["audit", "STORE", "--level", "deepest"], "deepest"),
    (["audit", "STORE", "--level", ""], "--level"),
    (["audit", "STORE", "--format", "yaml"], "yaml"),
    (["audit", "STORE", "--fail-on", "info"], "info"),
    (["audit", "STORE", "--severity", "no-such=error"], "no-such"),
    (["audit", "STORE", "--severity", "lag=fatal"], "fatal"),
    (["audit", "STORE", "--severity", "lag"], "--severity"),
    (["audit", "STORE", "--severity", ""], "--severity"),
    (["audit", "STORE", "--severity", "=error"], "--severity"),
    (["audit", "STORE", "-o", "MISSING/report.txt"], "MISSING"),
    (["audit", "STORE", "--format", "json", "-o", "MISSING/report.json"], "MISSING"),
    (["audit", "STORE", "-o", "ROOT"], "ROOT"),
    (["audit", "STORE", "-o", ""], "directory"),
    (["audit", "STORE", "--frobnicate"], "--frobnicate"),
    (["audit", "STORE", "--all-ids=yes"], "--all-ids"),
    (["explain", "no-such-finding"], "no-such-finding"),
    (["explain", ""], "explain"),
    (["explain", "lag", "lag-too"], "lag-too"),
    (["schema", "extra"], "extra"),
    (["demo", "extra"], "extra"),
    (["frobnicate"], "frobnicate"),
    (["--frobnicate"], "--frobnicate"),
]


@pytest.mark.parametrize(("words", "named"), WRONG_WORDS, ids=lambda v: " ".join(v) or "-")
def test_wrong_use_is_one_line_and_exit_code_2(
    words: Sequence[str], named: str, call: Call, kept: Path, tmp_path: Path
) -> None:
    places = {"STORE": str(kept / SOUND), "MISSING": str(tmp_path / "missing")}
    places["ROOT"] = str(tmp_path)
    given = [re.sub("STORE|MISSING|ROOT", lambda m: places[m.group()], word) for word in words]
    done = call(*given)
    assert places.get(named, named) in one_line(done.err)
    assert (done.code, done.out) == (2, "")


def test_no_command_at_all_is_wrong_use(call: Call) -> None:
    done = call()
    one_line(done.err)
    assert done.code == 2
    assert "audit" in done.out + done.err


def test_a_report_that_cannot_be_had_leaves_no_file(call: Call, kept: Path, tmp_path: Path) -> None:
    target = tmp_path / "report"
    assert call("audit", kept / SOUND, "--collection", "nope", "-o", target).code == 2
    assert call("audit", kept / SOUND, "--severity", "nope", "-o", target).code == 2
    assert not target.exists()


# --- Exit codes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "words", "code"),
    [
        ([SOUND], [], 0),
        ([LAGGING], [], 0),
        ([LAGGING], ["--fail-on", "warning"], 0),
        ([SOUND, LAGGING], [], 0),
        ([DAMAGED], [], 1),
        ([DAMAGED], ["--fail-on", "warning"], 1),
        ([DAMAGED], ["--level", "probe"], 1),
        ([COUNTS_BALANCE], ["--level", "probe"], 0),  # counts alone do not show it
        ([COUNTS_BALANCE], [], 1),
        ([ONLY_A_WARNING], [], 0),
        ([ONLY_A_WARNING], ["--fail-on", "error"], 0),
        ([ONLY_A_WARNING], ["--fail-on", "warning"], 1),
        ([ONLY_A_WARNING], ["--severity", "flush-interrupted=error"], 1),
        ([ONLY_A_WARNING], ["--severity", "flush-interrupted=info", "--fail-on", "warning"], 0),
        ([LAGGING], ["--severity", "lag=error"], 1),
        ([LAGGING], ["--severity", "lag=warning"], 0),
        ([LAGGING], ["--severity", "lag=warning", "--fail-on", "warning"], 1),
        ([DAMAGED], ["--severity", "records-missing=warning"], 1),  # there are phantoms, too
        (
            [DAMAGED],
            ["--severity", "records-missing=warning", "--severity", "records-phantom=info"],
            0,
        ),
        (
            [DAMAGED],
            [
                "--severity=records-missing=warning",
                "--severity=records-phantom=info",
                "--fail-on=warning",
            ],
            1,
        ),
        ([UNDECIDED], [], 3),
        ([UNDECIDED], ["--fail-on", "warning"], 3),
        ([SOUND, UNDECIDED], [], 3),
        ([UNDECIDED, SOUND], [], 3),
        ([UNDECIDED, DAMAGED], [], 1),  # damage found outranks incomplete
        ([DAMAGED, UNDECIDED, SOUND], [], 1),
        (["missing", SOUND], [], 2),
        ([SOUND, "missing"], [], 2),
        (["missing", UNDECIDED], [], 2),
        (["missing", DAMAGED], [], 1),
        ([DAMAGED, "missing"], [], 1),
    ],
    ids=lambda v: "+".join(v) or "-" if isinstance(v, list) else str(v),
)
def test_exit_code(
    names: Sequence[str], words: Sequence[str], code: int, call: Call, kept: Path
) -> None:
    paths = [kept / name for name in names]
    for form in ([], ["--quiet"], ["--format", "json"]):
        assert call("audit", *paths, *words, *form).code == code


def test_one_bad_path_does_not_hide_the_others(call: Call, kept: Path) -> None:
    paths = [kept / name for name in (SOUND, "missing", UNDECIDED, DAMAGED)]
    text = call("audit", *paths)
    lines = text.err.splitlines()
    for line, path in zip(lines, paths[1:3], strict=True):
        assert str(path) in one_line(f"{line}\n")
    assert f"consistent: {paths[0]}:" in text.out
    assert f"damaged: {paths[3]}:" in text.out
    document = call("audit", *paths, "--format", "json")
    assert document.err == text.err
    assert [(store["path"], store["verdict"]) for store in document.stores] == [
        (str(path), verdict)
        for path, verdict in zip(
            paths, ("consistent", "undecided", "undecided", "damaged"), strict=True
        )
    ]
    assert (text.code, document.code) == (1, 1)


def test_damage_outranks_undecided_within_a_store(call: Call, tmp_path: Path) -> None:
    store = unpack("1.5.9-tenants", tmp_path)
    first, second, *_ = segment_folders(store)
    (first / "header.bin").write_bytes(b"")
    (second / "header.bin").unlink()
    (second / "header.bin").symlink_to("/dev/zero")  # not read, so not judged
    rest(store)
    done = call("audit", store, "--format", "json")
    (found,) = done.stores
    assert done.code == 1
    assert found["verdict"] == "damaged"
    statuses = {s["vector_segment"]: s["status"] for s in found["segments"]}
    assert (statuses[first.name], statuses[second.name]) == ("corrupt", "undecided")


# --- What is audited and shown -------------------------------------------------------------------


def test_a_collection_is_chosen_by_name_or_id_and_several_by_several(
    call: Call, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    specs = [
        CollectionSpec(name="alpha", segment=Segment(dimension=2)),
        CollectionSpec(name="beta", segment=Segment(dimension=2)),
        CollectionSpec(name="beta", segment=Segment(dimension=2), tenant="other", database="x"),
        CollectionSpec(name="gamma", segment=Segment(dimension=2)),
    ]
    ids = [written.collection for written in write_store(store, specs)]

    def chosen(*words: str) -> list[str]:
        done = call("audit", store, "--format", "json", *words)
        assert (done.code, done.err) == (0, "")
        return sorted(s["collection"]["id"] for s in done.stores[0]["segments"])

    alpha, beta, other_beta, gamma = ids
    assert chosen() == sorted(ids)
    assert chosen("--collection", "alpha") == [alpha]
    assert chosen("--collection", other_beta) == [other_beta]
    assert chosen("--collection", "beta") == sorted([beta, other_beta])
    assert chosen("--collection", "gamma", "--collection", beta) == sorted([beta, gamma])
    assert chosen("--collection", "gamma", "--collection", gamma) == [gamma]


def test_damage_in_a_collection_that_was_not_asked_for_does_not_count(
    call: Call, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    fine = sound_collection("fine", 30, 4, deleted=1)
    _, broken = write_store(store, [fine, sound_collection("broken", 30, 4)])
    (broken.folder / "header.bin").write_bytes(b"")
    rest(store)
    assert call("audit", store).code == 1
    assert call("audit", store, "--collection", "broken").code == 1
    assert call("audit", store, "--collection", "fine").code == 0


def test_twenty_ids_are_named_or_all_of_them(call: Call, tmp_path: Path) -> None:
    write_store(tmp_path / "store", [missing_after_the_first(1234)])
    rest(tmp_path / "store")
    some = call("audit", tmp_path / "store")
    assert re.findall(r"record-\d+", some.out) == [f"record-{n:04}" for n in range(20)]
    assert "record-0018, record-0019 and 1,214 more " in unwrapped(some.out)
    every = call("audit", tmp_path / "store", "--all-ids")
    assert re.findall(r"record-\d+", every.out) == [f"record-{n:04}" for n in range(1234)]
    assert "record-1232, record-1233 Chroma: " in unwrapped(every.out)
    for words, named in (([], 20), (["--all-ids"], 1234)):
        done = call("audit", tmp_path / "store", "--format", "json", *words)
        (finding,) = done.stores[0]["segments"][0]["findings"]
        assert (finding["count"], len(finding["sample"])) == (1234, named)


def test_exactly_twenty_ids_are_all_of_them(call: Call, tmp_path: Path) -> None:
    write_store(tmp_path / "store", [missing_after_the_first(20)])
    rest(tmp_path / "store")
    assert "record-0018, record-0019 Chroma: " in unwrapped(call("audit", tmp_path / "store").out)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [(SOUND, "consistent"), (LAGGING, "consistent"), (DAMAGED, "damaged")],
)
def test_quiet_says_one_line_for_each_store(
    name: str, verdict: str, call: Call, kept: Path
) -> None:
    done = call("audit", kept / name, "--quiet")
    assert done.err == ""
    assert len(done.out.splitlines()) == 1
    assert done.out.startswith(f"{verdict}: {kept / name}: ")
    assert call("audit", kept / name, "-q").out == done.out
    assert call("audit", kept / name).out.splitlines()[-1] == done.out.rstrip("\n")


def test_probe_says_that_it_proves_nothing(call: Call, kept: Path) -> None:
    done = call("audit", kept / SOUND, "--level", "probe")
    assert "only level standard can prove" in done.out.splitlines()[-1]
    assert "level probe" in done.out


def test_text_shows_both_sides_and_why_they_differ(call: Call, kept: Path) -> None:
    lagging = call("audit", kept / LAGGING).out
    assert re.search(r"^ +on disk +\d+ +\d+$", lagging, re.MULTILINE)
    assert re.search(r"^ +in the WAL +[+-]\d+ +[+-]\d+ +\d+ operations? not flushed", lagging, re.M)
    assert re.search(r"^ +after replay +(\d+) +\1$", lagging, re.MULTILINE)
    assert "balances: 0 missing from the index, 0 unknown to sqlite" in lagging
    damaged = unwrapped(call("audit", kept / DAMAGED).out)
    assert "does not balance: 35 missing from the index, 10 unknown to sqlite" in damaged
    for id in ("records-missing", "records-phantom"):
        kind = REGISTRY[id]
        assert kind.title in damaged
        assert f"Chroma: {kind.consequence}" in damaged
    steps = damaged.partition("What to do now ")[2]
    assert steps.startswith(f"1. {KEEP} 2. ")
    assert damaged.count(KEEP) == 1
    assert REGISTRY["records-missing"].remedy.replace(f"{KEEP} ", "") in steps


def test_the_severity_that_was_given_is_shown(call: Call, kept: Path) -> None:
    words = ("audit", kept / LAGGING, "--severity", "lag=error")
    assert re.search(r"^ +error +lag ", call(*words).out, re.MULTILINE)
    (store,) = call(*words, "--format", "json").stores
    (finding,) = store["segments"][0]["findings"]
    assert (finding["id"], finding["severity"]) == ("lag", "error")
    # A severity is about exit codes; what is on disk stays what it is.
    assert (store["verdict"], store["segments"][0]["status"]) == ("consistent", "lagging")


# --- Where output goes ---------------------------------------------------------------------------


def timeless(text: str) -> str:
    return re.sub(r"\d+\.\d+(e-\d+)?(?= s$|,$)", "0", text, flags=re.MULTILINE)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_report_goes_into_a_file_and_nothing_to_stdout(
    form: str, call: Call, kept: Path, tmp_path: Path
) -> None:
    target = tmp_path / "report"
    target.write_text("an older and much longer report\n" * 10_000)
    shown = call("audit", kept / DAMAGED, "--format", form)
    for option in ("-o", "--output"):
        done = call("audit", kept / DAMAGED, "--format", form, option, target)
        assert (done.code, done.out, done.err) == (1, "", "")
        assert timeless(target.read_text("utf-8")) == timeless(shown.out)


def test_json_is_one_document_and_nothing_else(kept: Path) -> None:
    done = run("audit", kept / DAMAGED, kept / SOUND, "--format", "json")
    assert done.stderr == ""
    assert done.stdout.endswith("}\n")
    assert [s["verdict"] for s in json.loads(done.stdout)["stores"]] == ["damaged", "consistent"]


@dataclass(frozen=True, slots=True)
class Seen:
    """What came out on two terminals."""

    code: int
    out: str
    err: str


def on_terminals(*command: str | Path, **env: str) -> Seen:
    """Run a command with stdout and stderr each on a terminal of its own."""
    pairs = [pty.openpty() for _ in range(2)]
    process = subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        stdout=pairs[0][1],
        stderr=pairs[1][1],
        env=environment(TERM="xterm-256color", **env),
    )
    for _, slave in pairs:
        os.close(slave)
    masters = [master for master, _ in pairs]
    output = dict.fromkeys(masters, b"")
    open_ = set(masters)
    while open_:
        for master in select.select(list(open_), [], [], 60)[0]:
            try:
                data = os.read(master, 65536)
            except OSError:  # Linux says EIO when the other end has gone
                data = b""
            output[master] += data
            if not data:
                open_.discard(master)
    for master in masters:
        os.close(master)
    out, err = (output[m].decode().replace("\r\n", "\n") for m in masters)
    return Seen(process.wait(60), out, err)


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def test_a_terminal_gets_colours_and_the_same_words(kept: Path) -> None:
    seen = on_terminals(*PROGRAM, "audit", kept / DAMAGED)
    assert seen.code == 1
    assert "\x1b[1;31mdamaged" in seen.out
    assert seen.err == ""  # it took less than a second
    plain = run("audit", kept / DAMAGED).stdout
    assert timeless(ESCAPES.sub("", seen.out)) == timeless(plain)


def test_no_color_and_a_file_are_respected_on_a_terminal(kept: Path, tmp_path: Path) -> None:
    seen = on_terminals(*PROGRAM, "audit", kept / DAMAGED, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*\b[349]\d", seen.out)
    target = tmp_path / "report.txt"
    on_terminals(*PROGRAM, "audit", kept / DAMAGED, "-o", target)
    assert "\x1b" not in target.read_text("utf-8")
    json.loads(on_terminals(*PROGRAM, "audit", kept / DAMAGED, "--format", "json").out)


IMPATIENT = """
import sys
from hnswcheck.cli import app as cli
from hnswcheck.cli import progress
progress.DELAY_SECONDS = 0.0
cli.main()
"""


def test_progress_is_shown_on_a_terminal_only_and_not_when_quiet(kept: Path) -> None:
    impatient = (sys.executable, "-c", IMPATIENT, "audit", kept / DAMAGED)
    seen = on_terminals(*impatient)
    assert "docs" in ESCAPES.sub("", seen.err)
    assert seen.code == 1
    assert json.loads(on_terminals(*impatient, "--format", "json").out)
    assert on_terminals(*impatient, "--quiet").err == ""
    piped = subprocess.run(impatient, capture_output=True, env=environment(), check=False)
    assert piped.stderr == b""


# --- Hostile names -------------------------------------------------------------------------------

HOSTILE = {
    "escape": "a\x1b[2J\x1b]0;owned\x07b",
    "newline": "a\nconsistent: all is well\r\n\tb",
    "bidi": "a\u202etxt.exe\u2066\u2069\u200fb",
    "c1": "a\x9b31mb\x85c",
    "zero width": "a\u200b\ufeffb",
    "separators": "a\u2028b\u2029c",
    "nul": "a\x00b",
    "markup": "[bold red]a[/bold red] :smile: [link=http://x]",
    "unassigned": "a\ue000\U000e0001b",
    "quotes": "a\"b'c\\d",
    "long": "z" * 5000,
}
NOT_UTF_8 = b"a\xff\xfe\x80b"
SAFE = re.compile(r"[\n -~\u00a1-\ud7ff\uf900-\ufdff\U00010000-\U0002ffff]*")
UNSAFE = re.compile(
    "[\u00ad\u0600-\u0605\u061c\u06dd\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


def assert_harmless(output: str) -> None:
    """Nothing that a terminal would do more with than print it."""
    assert SAFE.fullmatch(output), sorted(set(SAFE.sub("", output)))
    assert not UNSAFE.search(output)


def strings_in(value: object) -> list[str]:
    """All strings of a JSON document."""
    match value:
        case str():
            return [value]
        case list():
            return [s for each in value for s in strings_in(each)]
        case dict():
            return [s for pair in value.items() for each in pair for s in strings_in(each)]
    return []


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a hostile text wherever a text can be, and ids missing from the index."""
    store = tmp_path_factory.mktemp("hostile") / "store\x1b[31m\u202e"
    names = list(HOSTILE.values())
    specs = [
        CollectionSpec(
            name=name,
            tenant=f"tenant {name}",
            database=f"database {name}",
            segment=Segment(dimension=2, ids=["held"]),
            records=[("held", 1), *((f"id {each}", 2 + n) for n, each in enumerate(names))],
            wal=[WalRow(seq_id=99 + number, op=Op.DELETE, id=f"gone {name}")],
            watermark=50,
            metadata_watermark=50,
        )
        for number, name in enumerate(names)
    ]
    written = write_store(store, specs)
    with contextlib.closing(sqlite3.connect(store / "chroma.sqlite3")) as database, database:
        raw = NOT_UTF_8
        database.execute(
            "UPDATE embeddings SET embedding_id = CAST(? AS TEXT) WHERE embedding_id = ?",
            (raw, f"id {HOSTILE['quotes']}"),
        )
        database.execute(
            "UPDATE collections SET name = CAST(? AS TEXT) WHERE id = ?",
            (raw, written[0].collection),
        )
        database.execute(
            "UPDATE segments SET type = ? WHERE id = ?",
            (HOSTILE["escape"], written[1].vector_segment),
        )
        database.execute("DELETE FROM segments WHERE id = ?", (written[2].vector_segment,))
        for table, column in (("segments", "id"), ("max_seq_id", "segment_id")):
            database.execute(
                f"UPDATE {table} SET {column} = ? WHERE {column} = ?",
                (f"../{HOSTILE['escape']}", written[3].vector_segment),
            )
        database.execute(
            "INSERT INTO migrations (dir, version, filename, sql, hash) VALUES (?, 0, '', '', '')",
            (HOSTILE["escape"],),
        )
    Path(f"{written[4].folder}.drift-\x1b[31m\u202e\udcff").mkdir()
    return rest(store)


def test_hostile_text_is_harmless_on_a_terminal(call: Call, hostile: Path) -> None:
    for words in ([], ["--level", "probe"], ["--all-ids"], ["--quiet"]):
        done = call("audit", hostile, *words)
        assert done.code in (0, 1)
        assert done.err == ""
        assert_harmless(done.out)
    text = call("audit", hostile, "--all-ids").out
    for shown in (
        r"a\x1b[2J\x1b]0;owned\x07b",
        r"a\nconsistent: all is well\r\n\tb",
        r"a\u202etxt.exe\u2066\u2069\u200fb",
        r"a\x9b31mb\x85c",
        r"a\x00b",
        r"a\xff\xfe\x80b",
        "[bold red]a[/bold red] :smile: [link=http://x]",
    ):
        assert shown in text
    verdicts = [line for line in text.splitlines() if line.startswith(("consistent", "damaged"))]
    assert len(verdicts) == 1


def test_hostile_text_is_plain_ascii_in_json(call: Call, hostile: Path) -> None:
    done = call("audit", hostile, "--format", "json", "--all-ids")
    assert done.err == ""
    assert re.fullmatch(r"[\n -~]*", done.out)
    (store,) = done.stores
    for string in strings_in(store):
        string.encode("utf-8")
    samples = [s for seg in store["segments"] for f in seg["findings"] for s in f["sample"]]
    assert f"id {HOSTILE['newline']}" in samples
    assert r"a\xff\xfe\x80b" in samples
    names = [segment["collection"]["name"] for segment in store["segments"]]
    assert HOSTILE["bidi"] in names or len(names) < len(HOSTILE)


@pytest.mark.parametrize("text", [HOSTILE["escape"], HOSTILE["newline"], HOSTILE["bidi"], "\udcff"])
def test_hostile_words_are_harmless_in_errors(text: str, call: Call, kept: Path) -> None:
    for words in (
        ["audit", f"/{text}"],
        ["audit", text],
        ["audit", kept / SOUND, "--collection", text],
        ["audit", kept / SOUND, "--level", text],
        ["audit", kept / SOUND, "--severity", text],
        ["audit", kept / SOUND, "--severity", f"lag={text}"],
        ["audit", kept / SOUND, "-o", f"/none/{text}"],
        ["explain", text],
        [text],
        [f"--{text}"],
    ):
        done = call(*words)
        assert_harmless(one_line(done.err))
        assert (done.code, done.out) == (2, "")


def test_a_path_that_is_not_utf_8_is_escaped(call: Call, kept: Path, tmp_path: Path) -> None:
    store = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xffstore"))
    shutil.copytree(kept / DAMAGED, store)
    text = call("audit", store)
    assert text.code == 1
    assert_harmless(text.out)
    document = call("audit", store, "--format", "json")
    for string in strings_in(document.stores):
        string.encode("utf-8")
    missing = call("audit", f"{store}-not", "--format", "json")
    assert missing.code == 2
    assert_harmless(one_line(missing.err))
    for string in strings_in(missing.stores):
        string.encode("utf-8")


IN_TURN = """
import sys
from hnswcheck.cli import app as cli
codes = []
for words in (sys.argv[1:], [*sys.argv[1:], "--format", "json"], ["audit", "--help"], ["explain"]):
    try:
        cli.main(words)
    except SystemExit as end:
        codes.append(end.code)
sys.exit(codes != [0, 0, 0, 0])
"""


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "utf-16"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda env: " ".join(env.values()),
)
def test_output_fits_any_encoding(env: dict[str, str], tmp_path: Path) -> None:
    store = tmp_path / "größe 日本"
    write_store(store, [sound_collection("größe 日本 ✓", 10, 2, deleted=1)])
    words = ["audit", str(store)]
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, *words],
        capture_output=True,
        env=environment(**env),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout) > 1000


# --- Readers that go away, disks that are full, Ctrl-C -------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["audit", SOUND], 0),
        (["audit", DAMAGED], 1),
        (["audit", UNDECIDED, SOUND], 3),
        (["audit", DAMAGED, "--format", "json"], 1),
        (["explain"], 0),
        (["schema"], 0),
        (["demo"], 0),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else str(v),
)
def test_a_reader_that_went_away_changes_nothing(
    words: Sequence[str], code: int, kept: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    process = subprocess.Popen(
        [*PROGRAM, *words], stdout=writing, stderr=subprocess.PIPE, env=environment(), cwd=kept
    )
    os.close(writing)
    _, err = process.communicate(timeout=60)
    assert b"Traceback" not in err
    assert b"Exception" not in err
    assert len(err.splitlines()) == (UNDECIDED in words)
    assert process.returncode == code


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize(
    "words",
    [["audit", SOUND], ["audit", SOUND, "--format", "json"], ["schema"], ["explain"]],
    ids=" ".join,
)
def test_a_report_that_does_not_arrive_is_no_success(words: Sequence[str], kept: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=kept,
            check=False,
        )
    assert "space" in one_line(done.stderr)
    assert done.returncode == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_file_that_cannot_be_filled_is_one_line(call: Call, kept: Path) -> None:
    done = call("audit", kept / SOUND, "-o", "/dev/full")
    assert "/dev/full" in one_line(done.err)
    assert done.code in (2, 3)
    assert done.out == ""


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_gives_no_traceback(closed: str, kept: Path) -> None:
    shell = f'exec "$@" {closed}>&-'
    for name, code in ((SOUND, 0), (DAMAGED, 1)):
        done = run("audit", kept / name, prefix=("sh", "-c", shell, "sh"))
        assert "Traceback" not in done.stdout + done.stderr
        assert done.returncode == code if closed == "2" else done.returncode in (code, 3)


def test_ctrl_c_is_one_line_and_exit_code_130(tmp_path: Path) -> None:
    store = unpack(HOT_JOURNAL, tmp_path)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    before = snapshot(store)
    process = subprocess.Popen(
        [*PROGRAM, "audit", *[str(store)] * 200],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(TMPDIR=str(scratch)),
    )
    until = time.monotonic() + 30
    while not list(scratch.iterdir()) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert one_line(err) == "hnswcheck: interrupted\n"
    assert (process.returncode, out) == (130, "")
    assert list(scratch.iterdir()) == []
    assert snapshot(store) == before


# --- The other commands --------------------------------------------------------------------------


def test_explain_lists_all_findings(call: Call) -> None:
    done = call("explain")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80
    lines = re.sub(r"\n {38}", " ", done.out).splitlines()  # a long title goes on below itself
    rows = [line.split(maxsplit=2) for line in lines]
    assert [(severity, id, title) for severity, id, title in rows] == [
        (kind.severity, kind.id, kind.title) for kind in REGISTRY.values()
    ]


@pytest.mark.parametrize("id", REGISTRY)
def test_explain_tells_all_of_one_finding(id: str, call: Call) -> None:
    kind = REGISTRY[id]
    done = call("explain", id)
    assert (done.code, done.err) == (0, "")
    for text in (kind.id, kind.severity, kind.title, kind.consequence, kind.remedy):
        assert text in unwrapped(done.out)
    assert kind.in_python in unwrapped(done.out)
    assert max(map(len, done.out.splitlines())) <= 80


def test_schema_prints_the_schema(call: Call) -> None:
    done = call("schema")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == json.loads(json_schema())


ALONE = """
import socket, sys


def forbidden(*_, **__):
    raise AssertionError("the network was used")


socket.socket = socket.create_connection = socket.getaddrinfo = forbidden
for name in ("chromadb", "hnswlib", "chroma_hnswlib", "requests", "httpx"):
    sys.modules[name] = None
from hnswcheck.cli.app import main
main(["demo"])
"""


def test_demo_needs_neither_network_nor_chromadb(tmp_path: Path) -> None:
    prefix = ["unshare", "-n"] if may_mount() else []
    done = subprocess.run(
        [
            *prefix,
            sys.executable,
            "-c",
            ALONE,
        ],
        capture_output=True,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("chromadb 1.5.9 wrote this store.")
    assert "records-missing" in done.stdout
    assert "does not balance" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("damaged: ")
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_known_to_these_tests() -> None:
    group = typer.main.get_command(cli.app)
    assert tuple(getattr(group, "commands", {})) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_has_an_example(command: str, flag: str, call: Call) -> None:
    done = call(command, flag)
    assert (done.code, done.err) == (0, "")
    after = done.out.partition("Example")[2]
    assert f"  hnswcheck {command}" in after
    listed = after.partition("Exit codes:")[2].partition("\n\n")[0]
    codes = re.findall(r"^ +(\d+)  \w", listed, re.MULTILINE)
    assert {"0", "2", "130"} <= set(codes)
    assert codes == sorted(codes, key=int)


def test_help_names_every_option_and_exit_code(call: Call) -> None:
    text = call("audit", "--help").out
    options = "--level --collection --format --fail-on --severity --all-ids --quiet -o --output"
    for option in options.split():
        assert option in text
    codes = ("0 nothing", "1 findings", "2 wrong use", "3 the store could not", "130 interrupted")
    for code in codes:
        assert re.search(code.replace(" ", r"\s+"), text)


def test_examples_of_the_help_are_accepted(
    call: Call, kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("chroma", "backup-1", "backup-2"):
        shutil.copytree(kept / LAGGING, tmp_path / name)
    examples = re.findall(r"^ *hnswcheck (audit .*?) *$", call("audit", "--help").out, re.MULTILINE)
    assert len(examples) >= 4
    for example in examples:
        words = [
            w for word in example.split() for w in sorted(map(str, Path().glob(word))) or [word]
        ]
        assert call(*words).code == 0, example


def test_version(call: Call) -> None:
    done = call("--version")
    assert (done.code, done.err) == (0, "")
    assert re.fullmatch(r"hnswcheck \d+\.\d+\.\d+\S*\n", done.out)


def test_the_module_and_the_script_are_the_same_program(kept: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, function = project["scripts"]["hnswcheck"].partition(":")
    script = (
        f"import sys; sys.argv[0] = 'hnswcheck'; import {module} as m; sys.exit(m.{function}())"
    )
    for words in (["audit", SOUND, "--quiet"], ["audit", DAMAGED, "--format", "x"]):
        done = [
            subprocess.run(
                [sys.executable, *how, *words],
                capture_output=True,
                env=environment(),
                cwd=kept,
                check=False,
            )
            for how in (("-m", "hnswcheck"), ("-c", script))
        ]
        assert len({(d.returncode, d.stdout, d.stderr) for d in done}) == 1


def test_severities_are_what_the_command_line_accepts(call: Call, kept: Path) -> None:
    for severity in SEVERITIES:
        assert call("audit", kept / SOUND, "--severity", f"lag={severity}").code == 0
