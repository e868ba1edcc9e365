"""How long an audit takes, next to the least it could take and to opening the store in Chroma.

``python benchmarks/audit.py --records 100000 --records 1000000 --chroma-python PATH``

For each size it writes one synthetic store, reads every file once so that all contenders find a
warm page cache, and runs each contender in a fresh process. It prints the fastest of ``--repeat``
runs and the highest memory seen. The floor is what any exact audit must do at the least: read the
index, unpickle its id map and read the ids that sqlite holds.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from compileall import compile_dir
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = "benchmark"
LEVELS = ("probe", "standard")
DELETED_SHARE = 100  # one deletion for so many records: real indexes have tombstones
READ_SIZE = 4 << 20
MEGABYTE = 1_000_000
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB elsewhere

FLOOR = f"""
import glob, os, pickle, sqlite3, sys
buffer = bytearray({READ_SIZE})
for name in ("header.bin", "data_level0.bin", "length.bin", "link_lists.bin"):
    for path in glob.glob(os.path.join(sys.argv[1], "*", name)):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
for path in glob.glob(os.path.join(sys.argv[1], "*", "index_metadata.pickle")):
    with open(path, "rb") as file:
        id_map = pickle.load(file)
database = sqlite3.connect(os.path.join(sys.argv[1], "chroma.sqlite3"))
for row in database.execute("SELECT embedding_id FROM embeddings"):
    pass
"""

#: What level deep cannot go below: each byte of each file once.
READ = f"""
import os, sys
buffer = bytearray({READ_SIZE})
for folder, _, names in os.walk(sys.argv[1]):
    for name in names:
        with open(os.path.join(folder, name), "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
"""

#: Where the vector of each record is, and what proves it, of a store without a header.
PLAN = """
import sys, hnswcheck
(segment,) = hnswcheck.repair(sys.argv[1], dry_run=True).segments
assert segment.grades == {"proven": int(sys.argv[2])}, segment.grades
"""

#: hnswlib holds the whole index in a process of its own; without it the audit's memory shows.
ALONE = "import sys; sys.modules['hnswlib'] = None; from hnswcheck.cli.app import main; main()"

CHROMA = """
import sys, chromadb
from chromadb.config import Settings
client = chromadb.PersistentClient(sys.argv[1], Settings(anonymized_telemetry=False))
count = client.get_collection(sys.argv[2], embedding_function=None).count()
assert count == int(sys.argv[3]), f"chromadb counts {count} records, expected {sys.argv[3]}"
"""

CHROMA_NAME = "chromadb open + count"  # what the ratios refer to, as is the floor
FLOOR_NAME = "floor"
CHROMA_VERSION = "import chromadb; print(chromadb.__version__)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A command to measure."""

    name: str
    command: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The fastest run of a contender and the highest memory of all; or why there is none."""

    name: str
    seconds: float = 0.0
    peak_bytes: int = 0
    failure: str | None = None


NOTHING = Result(name="")


def main() -> int:
    """Measure each size and print one table for it; 1 if a contender failed."""
    options = parse_options()
    compile_dir(ROOT / "hnswcheck", quiet=1)  # as pip does when it installs
    chroma_version = probe_chroma(options.chroma_python)
    print_surroundings(chroma_version)
    failed = False
    for records in options.records or [100_000]:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            store = Path(directory, "store")
            build(store, records, options.dim)
            warm(store)
            print_store(store, records, options.dim)
            python = options.chroma_python if chroma_version else None
            results = [
                measure(contender, options.repeat)
                for contender in contenders(store, records, python)
            ]
        print_results(results)
        failed = failed or any(result.failure for result in results)
    return int(failed)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, action="append", help="repeatable; 100000")
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--chroma-python", default=sys.executable, help="one with chromadb")
    parser.add_argument("--directory", help="where the stores go; the system's temporary one")
    return parser.parse_args()


def contenders(store: Path, records: int, chroma_python: str | None) -> Iterable[Contender]:
    """List what to measure; Chroma comes last, as it may write to the store."""
    python = sys.executable
    yield Contender(name="python start", command=[python, "-c", "pass"])
    yield Contender(name="python + numpy start", command=[python, "-c", "import numpy"])
    yield Contender(name=FLOOR_NAME, command=[python, "-c", FLOOR, str(store)])
    for level in LEVELS:
        yield Contender(
            name=f"audit {level}",
            command=[
                *(python, "-m", "hnswcheck", "audit", str(store)),
                *("--level", level, "-o", os.devnull),
            ],
        )
    yield Contender(name="read every file once", command=[python, "-c", READ, str(store)])
    deep = ("audit", str(store), "--level", "deep", "-o", os.devnull)
    yield Contender(name="audit deep, no hnswlib", command=[python, "-c", ALONE, *deep])
    if find_spec("hnswlib") is not None:
        yield Contender(name="audit deep", command=[python, "-m", "hnswcheck", *deep])
    damaged = store.with_name("damaged")
    damage(store, damaged)
    yield Contender(name="repair --plan", command=[python, "-c", PLAN, str(damaged), str(records)])
    if chroma_python is not None:
        yield Contender(name="import chromadb", command=[chroma_python, "-c", "import chromadb"])
        yield Contender(
            name=CHROMA_NAME,
            command=[chroma_python, "-c", CHROMA, str(store), COLLECTION, str(records)],
        )


def measure(contender: Contender, repeat: int) -> Result:
    """Run a command `repeat` times, one after the other."""
    seconds: list[float] = []
    peaks: list[int] = []
    for _ in range(repeat):
        # A file, as a full pipe would stop a child that nobody reads from.
        with tempfile.TemporaryFile() as errors:
            started = time.perf_counter()
            # The checkout must be importable whether or not it is installed.
            child = subprocess.Popen(
                contender.command, stdout=subprocess.DEVNULL, stderr=errors, cwd=ROOT
            )
            _, status, usage = os.wait4(child.pid, 0)
            seconds.append(time.perf_counter() - started)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode != 0:
                errors.seek(0)
                lines = errors.read().decode(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "no message"
                return Result(name=contender.name, failure=f"exit {child.returncode}: {reason}")
        peaks.append(usage.ru_maxrss * MAXRSS_UNIT)
    return Result(name=contender.name, seconds=min(seconds), peak_bytes=max(peaks))


def build(store: Path, records: int, dimension: int) -> None:
    """Write the store in a process of its own.

    A child's ru_maxrss starts at what its parent had resident when it forked (execve(2) keeps the
    mark), so this process must stay small: no numpy here.
    """
    command = [sys.executable, str(ROOT / "tests" / "support" / "synthetic.py"), str(store)]
    command += ["--records", str(records), "--deleted", str(records // DELETED_SHARE)]
    command += ["--dim", str(dimension), "--collection", COLLECTION]
    subprocess.run(command, check=True)


def damage(store: Path, copy: Path) -> None:
    """The same store, by hard links, but with nothing in header.bin."""
    shutil.copytree(store, copy, copy_function=os.link)
    for header in copy.glob("*/header.bin"):
        size = header.stat().st_size
        header.unlink()
        header.write_bytes(bytes(size))


def warm(store: Path) -> None:
    """Read every file once."""
    buffer = bytearray(READ_SIZE)
    for path in store.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def probe_chroma(python: str) -> str | None:
    """Ask an interpreter for its version of chromadb; None if it has none."""
    try:
        done = subprocess.run(
            [python, "-c", CHROMA_VERSION], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def print_surroundings(chroma_version: str | None) -> None:
    """Print what the numbers depend on besides the code."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.platform()}")
    if chroma_version is None:
        print("chromadb: skipped, not importable; name an interpreter with --chroma-python")
    else:
        print(f"chromadb {chroma_version}")


def print_store(store: Path, records: int, dimension: int) -> None:
    """Print the sizes of a store's files."""
    sizes = {path.name: path.stat().st_size for path in store.rglob("*") if path.is_file()}
    files = ", ".join(f"{name} {size / MEGABYTE:,.1f}" for name, size in sorted(sizes.items()))
    total = sum(sizes.values()) / MEGABYTE
    print(
        f"\n{records:,} records of {dimension} dimensions, {total:,.1f} MB: {files}\n", flush=True
    )


def print_results(results: Sequence[Result]) -> None:
    """Print a Markdown table; failures are rows in it."""
    sound = {result.name: result for result in results if result.failure is None}
    floor, chroma = sound.get(FLOOR_NAME, NOTHING), sound.get(CHROMA_NAME, NOTHING)
    print(f"| {'':<22} | seconds | x chromadb | x floor | peak MB | x chromadb |")
    print(f"|{'-' * 24}|--------:|-----------:|--------:|--------:|-----------:|")
    for result in results:
        if result.failure is not None:
            print(f"| {result.name:<22} | FAILED: {result.failure} |")
            continue
        cells = (
            f"{result.seconds:7.3f}",
            f"{ratio(result.seconds, chroma.seconds):>10}",
            f"{ratio(result.seconds, floor.seconds):>7}",
            f"{result.peak_bytes / MEGABYTE:7.1f}",
            f"{ratio(result.peak_bytes, chroma.peak_bytes):>10}",
        )
        print(f"| {result.name:<22} | {' | '.join(cells)} |")


def ratio(value: float, base: float) -> str:
    """Divide, or give a dash where there is nothing to compare with."""
    return f"{value / base:.3f}" if base else "-"


if __name__ == "__main__":
    sys.exit(main())
