"""How well searches in a rebuilt index find what they should, next to the index that Chroma built.

``python benchmarks/recall.py --chroma-python PATH --records 20000``

Chroma adds vectors to a collection of each space. Then searches by the collection's own vectors
are held against the exact answer: with Chroma's index, and, after its header was zeroed and
``hnswcheck repair`` built the index anew, with that one; both times by Chroma itself, in a fresh
process. Recall is the share of the ten nearest that are found.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import hnswcheck  # noqa: E402

SPACES = ("l2", "cosine", "ip")
#: Threads add in another order each time: four builds by Chroma itself differed by up to 0.0014.
NOISE = 0.002
NEAREST, QUERIES = 10, 2000

OPEN = """
import json, sys
import chromadb, numpy
from chromadb.config import Settings
path, space, records, dimension, seed = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
vectors = numpy.random.default_rng(seed).standard_normal((records, dimension), numpy.float32)
client = chromadb.PersistentClient(path, settings=Settings(anonymized_telemetry=False))
"""

FILL = f"""{OPEN}
collection = client.create_collection(
    "docs", configuration={{"hnsw": {{"space": space, "sync_threshold": 1000}}}}
)
for first in range(0, records, 1000):
    part = vectors[first : first + 1000]
    collection.add(ids=[str(first + n) for n in range(len(part))], embeddings=part)
"""

SEARCH = f"""{OPEN}
collection = client.get_collection("docs")
chosen = numpy.random.default_rng(seed + 1).permutation(records)[:{QUERIES}]
found = 0
for first in range(0, len(chosen), 100):
    part = vectors[chosen[first : first + 100]]
    dots = part @ vectors.T
    match space:
        case "l2":
            far = (vectors ** 2).sum(axis=1) - 2 * dots
        case "cosine":
            far = -dots / numpy.linalg.norm(vectors, axis=1)
        case _:
            far = -dots
    nearest = numpy.argpartition(far, {NEAREST}, axis=1)[:, :{NEAREST}]
    hits = collection.query(query_embeddings=part, n_results={NEAREST})["ids"]
    for ids, exact in zip(hits, nearest.tolist()):
        found += len(set(map(int, ids)) & set(exact))
print(json.dumps(found / ({NEAREST} * len(chosen))))
"""


def ask(python: str, script: str, store: Path, space: str, options: argparse.Namespace) -> str:
    """Run a script in an interpreter that has chromadb; what it printed."""
    numbers = map(str, (options.records, options.dim, options.seed))
    command = [python, "-c", script, str(store), space, *numbers]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def break_header(store: Path) -> None:
    """An index that Chroma does not open any more, whose vectors are all there."""
    (header,) = store.glob("*/header.bin")
    header.write_bytes(bytes(header.stat().st_size))


def main() -> int:
    """Fill, search, break, repair, search; 1 where a rebuilt index finds clearly less."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chroma-python", default=sys.executable, help="one with chromadb")
    options = parser.parse_args()
    print(f"{options.records:,} records of {options.dim} dimensions, {QUERIES:,} searches\n")
    print("| space | Chroma's index | rebuilt | difference |\n|---|--:|--:|--:|")
    worst = 0.0
    for space in SPACES:
        with tempfile.TemporaryDirectory() as scratch:
            store = Path(scratch, "store")
            ask(options.chroma_python, FILL, store, space, options)
            before = json.loads(ask(options.chroma_python, SEARCH, store, space, options))
            break_header(store)
            hnswcheck.repair(store)
            after = json.loads(ask(options.chroma_python, SEARCH, store, space, options))
        worst = min(worst, after - before)
        print(f"| {space} | {before:.4f} | {after:.4f} | {after - before:+.4f} |", flush=True)
    return int(worst < -NOISE)


if __name__ == "__main__":
    sys.exit(main())
