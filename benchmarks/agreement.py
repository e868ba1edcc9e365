"""Does the verdict agree with the real engine? And do those of other tools?

``python benchmarks/agreement.py --stores 80 --directory KEEP --chroma-python PATH``

Makes so many stores of each fault of tests/faults.py, each from its seed, lets the real engine read
and write a copy of each (tests/oracle.py), audits them, and prints one table. What it made and what
the engine said is kept in the directory, so that a run that was stopped goes on where it was, and
a later version can be held against the same stores.

A store is a case of its worst collection. The columns:

* broken: the engine crashed, failed, lost or mixed up records, by what it answered;
* caught: of these, those where an error is reported for that collection;
* unseeable: the only wrong thing is the value of vectors (or of norms), and neither the index nor
  the log holds a second copy to compare with: no audit of the directory can tell;
* MISSED: broken otherwise, and nothing is reported;
* only ours: the engine was content, but the file breaks a rule that the reason names;
* FALSE ALARM: the engine was content, and no such rule is broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import faults  # noqa: E402
import oracle  # noqa: E402

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
        cls.judge = oracle.Oracle(python, time_limit=20, scratch=scratch)

    @classmethod
    def case(cls, case: Case, directory: Path) -> None:
        """Make the store and write down what the engine does with it."""
        home = directory / case.name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        result: dict[str, Any] = {"collections": []}
        try:
            result["note"] = cls.lab.make(case.fault, case.seed, home / STORE)
            subjects = oracle.subjects(home / STORE)
            phases = oracle.PHASES if case.seed % 3 == 0 else SHORT
            for subject in subjects:
                found = cls.judge.judge(home / STORE, subject, faults.truth, phases=phases)
                result["collections"].append(asdict(found) | {"broken": found.broken})
        except sqlite3.Error as error:
            result["unreadable"] = str(error)
        except (OSError, AssertionError, ValueError) as error:
            result["skipped"] = f"{type(error).__name__}: {error}"
        (home / VERDICT).write_text(json.dumps(result))


def make_all(cases: Sequence[Case], options: argparse.Namespace) -> None:
    """Make and judge what is not there yet."""
    directory: Path = options.directory
    waiting = [case for case in cases if not (directory / case.name / VERDICT).exists()]
    cache = directory / "bases"
    cache.mkdir(parents=True, exist_ok=True)
    arguments = (options.chroma_python, cache)
    started = time.monotonic()
    with ProcessPoolExecutor(options.jobs, initializer=Worker.start, initargs=arguments) as pool:
        running = [pool.submit(Worker.case, case, directory) for case in waiting]
        for number, done in enumerate(as_completed(running), 1):
            done.result()
            if number % 20 == 0 or number == len(running):
                spent = time.monotonic() - started
                left = spent / number * (len(running) - number)
                text = f"{number} of {len(running)} stores, {spent:.0f} s, {left:.0f} s to go"
                print(text, file=sys.stderr, flush=True)


def main() -> int:
    options = parse_options()
    names = options.fault or list(faults.FAULTS)
    seeds = range(options.seed, options.seed + options.stores)
    cases = [Case(name, seed) for seed in seeds for name in names]
    make_all(cases, options)
    return 0


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stores", type=int, default=80, help="of each fault")
    parser.add_argument("--seed", type=int, default=10_000, help="the first")
    parser.add_argument("--fault", action="append", choices=list(faults.FAULTS))
    parser.add_argument("--directory", type=Path, required=True, help="where the stores are kept")
    parser.add_argument("--chroma-python", default=sys.executable, help="one with chromadb")
    parser.add_argument("--jobs", type=int, default=2)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
