"""How long building a segment folder takes, next to hnswlib's own build of the same index.

``python benchmarks/rebuild.py --records 1000000``

Vectors are drawn once and lie in a file; each contender reads them piece by piece in a fresh
process. hnswlib's own build adds them and stops: it saves nothing. Memory is what the process had
resident at its peak beyond what the imports take, as a multiple of hnswlib's own and of the index
on disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, KiB elsewhere
MEGABYTE = 1_000_000
M, EF_CONSTRUCTION, PIECE = 16, 100, 10_000

DRAW = """
import sys, numpy
path, records, dimension = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
source = numpy.random.default_rng(0)
with open(path, "wb") as file:
    for first in range(0, records, 10_000):
        rows = min(10_000, records - first)
        source.standard_normal((rows, dimension), numpy.float32).tofile(file)
"""

READ = f"""
import sys, time
from pathlib import Path
import hnswlib, numpy
from hnswcheck.repairing.index_settings import IndexSettings
from hnswcheck.repairing.build_index import build_segment
from hnswcheck.formats.strings import Strings
path, folder, space = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
records, dimension, threads = map(int, sys.argv[4:])

def pieces():
    with open(path, "rb") as file:
        for first in range(0, records, {PIECE}):
            rows = min({PIECE}, records - first)
            yield numpy.fromfile(file, numpy.float32, rows * dimension).reshape(rows, dimension)
"""

IMPORTS = READ

OWN = f"""{READ}
index = hnswlib.Index(space, dimension)
index.init_index(records, M={M}, ef_construction={EF_CONSTRUCTION}, random_seed=0)
for piece in pieces():
    index.add_items(piece, num_threads=threads)
"""

OURS = f"""{READ}
digits = numpy.random.default_rng(1).bytes(18 * records).hex().encode()
ids = Strings.packed(digits, numpy.full(records, 36, numpy.int64))
settings = IndexSettings(
    space=space, dimension=dimension, line="1.5", m={M}, ef_construction={EF_CONSTRUCTION},
    threads=threads,
)
build_segment(folder, pieces(), ids, settings, scratch=folder.with_suffix(".scratch"))
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What a process took; on a busy machine only its processor time says something."""

    seconds: float
    processor_seconds: float
    peak_bytes: int


def main() -> None:
    """Measure and print a table."""
    options = parse_options()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {platform.platform()}")
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        vectors, folder = Path(directory, "vectors"), Path(directory, "segment")
        shape = (str(options.records), str(options.dim))
        subprocess.run([sys.executable, "-c", DRAW, str(vectors), *shape], check=True)
        arguments = (str(vectors), str(folder), options.space, *shape, str(options.threads))
        imports = measure(IMPORTS, arguments)
        own = measure(OWN, arguments)
        ours = measure(OURS, arguments)
        size = sum(path.stat().st_size for path in folder.iterdir())
    print(
        f"\n{options.records:,} records of {options.dim} dimensions under {options.space}, "
        f"{options.threads} threads, {size / MEGABYTE:,.1f} MB\n"
    )
    print(
        "|                     | seconds | x hnswlib | CPU s | x own | peak MB | x own | x disk |"
    )
    print(
        "|---------------------|--------:|----------:|------:|------:|--------:|------:|-------:|"
    )
    base = own.peak_bytes - imports.peak_bytes
    for name, result in (("imports", imports), ("hnswlib's own build", own), ("rebuild", ours)):
        peak = result.peak_bytes - imports.peak_bytes
        cells = (
            f"{result.seconds:7.1f}",
            f"{result.seconds / own.seconds:9.3f}",
            f"{result.processor_seconds:5.0f}",
            f"{result.processor_seconds / own.processor_seconds:5.3f}",
            f"{result.peak_bytes / MEGABYTE:7,.0f}",
            f"{peak / base:5.3f}",
            f"{peak / size:6.3f}",
        )
        print(f"| {name:<19} | {' | '.join(cells)} |")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--space", choices=("l2", "cosine", "ip"), default="cosine")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--directory", help="where files go; the system's temporary one")
    return parser.parse_args()


def measure(script: str, arguments: tuple[str, ...]) -> Result:
    """Run a script in a process of its own.

    A child's ru_maxrss starts at what its parent had resident when it forked (execve(2) keeps the
    mark), so this process must stay small: no numpy here.
    """
    started = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", script, *arguments], cwd=ROOT)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"exit code {child.returncode}")
    processor = usage.ru_utime + usage.ru_stime
    return Result(seconds, processor, usage.ru_maxrss * MAXRSS_UNIT)


if __name__ == "__main__":
    main()
