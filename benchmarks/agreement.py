"""Does the verdict agree with the real engine? And do those of other tools?

``python benchmarks/agreement.py --stores 80 --directory KEEP --chroma-python PATH``

Makes so many stores of each fault of tests/support/faults.py, each from its seed, lets the real
engine read and write a copy of each (tests/support/oracle.py), audits them, and prints one table.
What it made and what the engine said is kept in the directory, so that a run that was stopped goes
on where it was, and a later version can be held against the same stores.

A store is a case of its worst collection. The columns:

* broken: the engine crashed, failed, lost or mixed up records, by what it answered;
* caught: of these, those where an error is reported for that collection;
* recall: the engine answers, but searches pass by many records that are there (see the warning
  elements-unreachable and searches-miss);
* unseeable: the only wrong thing is the value of vectors (or of norms), and neither the index nor
  the log holds a second copy to compare with: no audit of the directory can tell;
* MISSED: broken otherwise, and nothing is reported;
* only ours: the engine was content, but the file breaks a rule that the reason names;
* FALSE ALARM: the engine was content, and no such rule is broken.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import faults  # noqa: E402
import oracle  # noqa: E402
import rivals  # noqa: E402

import hnswcheck  # noqa: E402

VERDICT, STORE = "engine.json", "store"
#: Operations of these faults that need no second look are judged in two phases of four.
SHORT = oracle.PHASES[:2]


@dataclass(frozen=True, slots=True)
class Case:
    """One store: which fault made it, from which seed."""

    fault: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.fault}-{self.seed}"


# --- What the engine says ------------------------------------------------------------------------


class Worker:
    """A process that makes stores and asks the engine about them."""

    lab: faults.Lab
    judge: oracle.Oracle

    @classmethod
    def start(cls, python: str, cache: Path) -> None:
        scratch = Path(tempfile.mkdtemp(prefix="agreement-"))
        shim = faults.build_shim(scratch)
        cls.lab = faults.Lab(oracle.Engine(python, shim), scratch, shim is not None, cache)
        cls.judge = oracle.Oracle(python, time_limit=60, scratch=scratch)

    @classmethod
    def case(cls, case: Case, directory: Path) -> None:
        """Make the store and write down what the engine does with it."""
        home = directory / case.name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        result: dict[str, Any] = {"collections": []}
        try:
            result["note"] = cls.lab.make(case.fault, case.seed, home / STORE)
            result |= cls.verdict(home / STORE, oracle.PHASES if case.seed % 3 == 0 else SHORT)
        except (
            OSError,
            AssertionError,
            ValueError,
            TypeError,
            ImportError,
            sqlite3.Error,
        ) as error:
            # No shim, or a fault that knows only what 1.x writes.
            result["skipped"] = f"{type(error).__name__}: {error}"
        (home / VERDICT).write_text(json.dumps(result))

    @classmethod
    def verdict(cls, store: Path, phases: Sequence[str]) -> dict[str, Any]:
        """What the engine does with each collection."""
        try:
            subjects = oracle.subjects(store)
        except sqlite3.Error as error:
            return {"unreadable": str(error)}
        judged = [cls.judge.judge(store, s, faults.truth, phases=phases) for s in subjects]
        return {"collections": [asdict(found) | {"broken": found.broken} for found in judged]}


def make_all(cases: Sequence[Case], options: argparse.Namespace) -> None:
    """Make and judge what is not there yet."""
    directory: Path = options.directory
    waiting = [case for case in cases if not (directory / case.name / VERDICT).exists()]
    cache = directory / "bases"
    cache.mkdir(parents=True, exist_ok=True)
    arguments = (options.chroma_python, cache)
    started = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, spawn, Worker.start, arguments) as pool:
        running = [pool.submit(Worker.case, case, directory) for case in waiting]
        for number, done in enumerate(as_completed(running), 1):
            done.result()
            if number % 20 == 0 or number == len(running):
                spent = time.monotonic() - started
                left = spent / number * (len(running) - number)
                text = f"{number} of {len(running)} stores, {spent:.0f} s, {left:.0f} s to go"
                print(text, file=sys.stderr, flush=True)


# --- What hnswcheck says -------------------------------------------------------------------------

#: Why an error stands although the engine was content with what it was asked here.
UNDEFINED = "undefined behaviour: the files lead the engine out of its memory, if it goes there"
LOAD = "refused by the load validation of Chroma's main branch"
OTHERS = "refused by another line of Chroma that reads the same file"
TWICE = "index and log hold different vectors of one record; the engine reads only one of the two"
UNTOUCHED = "damage that these calls did not come across; sqlite's integrity check confirms it"
REASONS = {
    "link-lists-truncated": UNDEFINED,
    "link-lists-invalid": UNDEFINED,
    "neighbour-out-of-range": UNDEFINED,
    "degree-too-large": UNDEFINED,
    "level-inconsistent": UNDEFINED,
    "entry-point-invalid": UNDEFINED,
    "file-truncated": UNDEFINED,
    "header-invalid": UNDEFINED,
    "header-count-impossible": UNDEFINED,
    "second-reader-disagrees": UNDEFINED,
    "writes-swallowed": "the engine skips what a watermark is past, so no answer shows it",
    "label-duplicate": LOAD,
    "label-missing": LOAD,
    "label-tombstoned": LOAD,
    "element-unmapped": LOAD,
    "id-map-missing": LOAD,
    "id-map-label-out-of-range": LOAD,
    "id-map-dimension-mismatch": OTHERS,
    "id-map-unsafe": OTHERS,
    "id-map-invalid": OTHERS,
    "vector-differs-from-wal": TWICE,
    "sqlite-damaged": UNTOUCHED,
    "catalogue-invalid, settings lost": "another distance than the collection was made for",
}
#: What the engine cannot know to be wrong.
VALUES = {oracle.Kind.WRONG, oracle.Kind.STALE}
#: The classes of a case, the worst first.
CLASSES = ("MISSED", "FALSE ALARM", "unseeable", "recall", "caught", "only ours", "clean")
WRONG = CLASSES[:2]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One case, judged by both."""

    case: Case
    kind: str
    text: str
    broken: bool


def outcome(case: Case, home: Path, level: str) -> Outcome | None:
    """Hold the audit against the engine; None for a store that could not be made.

    Args:
        home: where the store is, and what the engine said of it.
    """
    engine = json.loads((home / VERDICT).read_text())
    if "skipped" in engine:
        return None
    try:
        report = hnswcheck.audit(home / STORE, level)
    except hnswcheck.HnswcheckError as error:
        broken = "unreadable" in engine or any(c["broken"] for c in engine["collections"])
        kind = "caught" if broken else "FALSE ALARM"
        return Outcome(case, kind, f"{type(error).__name__}: {error}", broken)
    (store,) = report.stores
    general = {named(f) for f in store.findings if f.severity == "error"}
    own = {
        s.collection.name: [f for f in s.findings if f.severity == "error"] for s in store.segments
    }
    found: list[tuple[str, str]] = []
    if "unreadable" in engine:
        found.append(("caught" if store.verdict != "consistent" else "MISSED", "no catalogue"))
    any_broken = any(c["broken"] for c in engine["collections"])
    for collection in engine["collections"]:
        name = collection["collection"]
        errors = own.get(name, [])
        said = {f.id for f in errors}
        if collection["broken"]:
            kind = "caught" if said or general else missed(home / STORE, collection)
        else:
            said = said if any_broken else said | general
            kind = "clean"
            if said:
                unmet = {
                    f.id for f in errors if f.sample and passed_by(collection).issuperset(f.sample)
                }
                kind = "only ours" if confirmed(said - unmet, home / STORE) else "FALSE ALARM"
        problems = "; ".join(f"{p['kind']} at {p['step']}" for p in collection["problems"][:3])
        found.append((kind, f"{name}: {sorted(said | general)} engine: {problems or 'clean'}"))
    kind, text = min(found, key=lambda one: CLASSES.index(one[0]), default=("clean", ""))
    return Outcome(case, kind, f"{engine['note'][:120]} | {text}", any_broken)


def named(found: hnswcheck.Finding) -> str:
    lost = found.id == "catalogue-invalid" and all("lost its settings" in s for s in found.sample)
    return f"{found.id}, settings lost" if lost else found.id


def missed(store: Path, collection: Mapping[str, Any]) -> str:
    """Whether anything in the directory could have told."""
    grave = [p for p in collection["problems"] if p["grave"]]
    kinds = {p["kind"] for p in grave}
    if kinds <= {oracle.Kind.UNFOUND}:
        return "recall"
    ids = {i for p in grave for i in p["ids"]}
    return "unseeable" if kinds <= VALUES and not ids & logged(store, collection) else "MISSED"


def passed_by(collection: Mapping[str, Any]) -> set[str]:
    """Records that no search arrived at, as in any HNSW index: what is wrong there went unmet."""
    unfound = [p for p in collection["problems"] if p["kind"] == oracle.Kind.UNFOUND]
    return {i for p in unfound for i in p["ids"]}


def logged(store: Path, collection: Mapping[str, Any]) -> set[str]:
    """Ids with a vector in the log that the index must have: a second copy of it."""
    query = (
        "SELECT q.id FROM embeddings_queue q JOIN collections c ON q.topic LIKE '%/' || c.id"
        " JOIN segments s ON s.collection = c.id AND s.scope = 'VECTOR'"
        " JOIN max_seq_id m ON m.segment_id = s.id"
        " WHERE c.name = ? AND q.seq_id <= m.seq_id AND q.vector IS NOT NULL"
    )
    with oracle.copied_database(store) as database:
        return {record for (record,) in database.execute(query, [collection["collection"]])}


def confirmed(errors: set[str], store: Path) -> bool:
    """Whether each error breaks a rule that the engine did not run into here."""
    if "sqlite-damaged" in errors:
        with oracle.copied_database(store) as database:
            try:
                if database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]:
                    return False
            except sqlite3.DatabaseError:
                pass
    return errors <= REASONS.keys()


# --- Tables --------------------------------------------------------------------------------------


def print_classes(outcomes: Sequence[Outcome], names: Sequence[str]) -> None:
    """One line per fault."""
    heads = ("stores", "broken", *CLASSES)
    print(f"| {'fault':<18} |" + "|".join(f" {head} " for head in heads) + "|")
    print("|---|" + "--:|" * len(heads))
    total: Counter[str] = Counter()
    for name in names:
        line = Counter(o.kind for o in outcomes if o.case.fault == name)
        line["stores"] = sum(line.values())
        line["broken"] = sum(o.broken for o in outcomes if o.case.fault == name)
        total += line
        print(
            f"| {name:<18} |" + "|".join(f"{line[head]:>{len(head) + 1}} " for head in heads) + "|"
        )
    print(f"| {'all':<18} |" + "|".join(f"{total[head]:>{len(head) + 1}} " for head in heads) + "|")


def print_rivals(outcomes: Sequence[Outcome], options: argparse.Namespace) -> None:
    """What others say of the same stores."""
    print("\n| tool | version | broken stores called | missed | false alarms | no verdict |")
    print("|---|---|--:|--:|--:|--:|")
    broken = [o for o in outcomes if o.broken]
    sound = [o for o in outcomes if o.kind == "clean"]
    ours = Counter(o.kind for o in outcomes)
    caught = sum(o.kind == "caught" for o in broken)
    alarms = ours["FALSE ALARM"]
    print(
        f"| hnswcheck {options.level} | {hnswcheck.__version__} | {caught} of {len(broken)}"
        f" | {len(broken) - caught} | {alarms} of {len(sound) + alarms} | 0 |"
    )
    for rival in rivals.rivals(options.mempalace_python, options.chops_python):
        if rival.skipped:
            print(f"| {rival.name} | skipped: {rival.skipped} | | | | |")
            continue
        opinions = {
            o.case: rival.judge(options.directory / o.case.name / STORE).damaged
            for o in (*broken, *sound)
        }
        called = sum(opinions[o.case] is True for o in broken)
        missed = sum(opinions[o.case] is False for o in broken)
        alarms = sum(opinions[o.case] is True for o in sound)
        none = sum(opinion is None for opinion in opinions.values())
        print(
            f"| {rival.name} | {rival.version} | {called} of {len(broken)} | {missed}"
            f" | {alarms} of {len(sound)} | {none} |",
            flush=True,
        )


def print_disagreements(outcomes: Sequence[Outcome], options: argparse.Namespace) -> None:
    """How to make each store again that one of the two is wrong about."""
    for o in outcomes:
        if o.kind in WRONG:
            print(f"\n{o.kind}: {o.case.name} in {options.directory}; made again by")
            print(f"  --fault {o.case.fault} --seed {o.case.seed} --stores 1")
            print(f"  {o.text}")


def main() -> int:
    """Make, ask, audit, print; 1 where the audit and the engine disagree."""
    options = parse_options()
    names = options.fault or list(faults.FAULTS)
    seeds = range(options.seed, options.seed + options.stores)
    cases = [Case(name, seed) for seed in seeds for name in names]
    if not options.judge_only:
        make_all(cases, options)
    there = [case for case in cases if (options.directory / case.name / VERDICT).exists()]
    judged = (outcome(case, options.directory / case.name, options.level) for case in there)
    outcomes = [o for o in judged if o is not None]
    print_classes(outcomes, names)
    print_disagreements(outcomes, options)
    if options.rivals:
        print_rivals(outcomes, options)
    return int(any(o.kind in WRONG for o in outcomes))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stores", type=int, default=80, help="of each fault")
    parser.add_argument("--seed", type=int, default=10_000, help="the first")
    parser.add_argument("--fault", action="append", choices=list(faults.FAULTS))
    parser.add_argument("--directory", type=Path, required=True, help="where the stores are kept")
    parser.add_argument("--level", default="deep", choices=list(hnswcheck.Level))
    parser.add_argument("--chroma-python", default=sys.executable, help="one with chromadb")
    parser.add_argument("--judge-only", action="store_true", help="make no more stores")
    parser.add_argument("--rivals", action="store_true", help="ask other tools, too")
    parser.add_argument("--mempalace-python", help="one with mempalace 3.11")
    parser.add_argument("--chops-python", help="one with chromadb-ops")
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
