"""Audits in a loop beside writers that flush all the time: is anybody ever wronged?

    python benchmarks/living.py --minutes 10

Two threads of one process write to two collections of one store with chromadb (small
sync_threshold, so that they flush within every few calls), while three processes audit it in a
loop, each audit at another level. Ends with 1 if a write failed, an audit raised a false alarm, or
the store is not sound at the end; prints what the audits said.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

import hnswcheck  # noqa: E402

#: Ends when its stdin does; then says what failed, and how often it wrote.
WRITER = """
import json, random, sys, threading
import chromadb

client = chromadb.PersistentClient(sys.argv[1], chromadb.Settings(anonymized_telemetry=False))
stop, failed, done = threading.Event(), [], [0, 0]

def write(name, number):
    draw, live, fresh = random.Random(name), [], 0
    settings = {"hnsw": {"sync_threshold": 20, "batch_size": 5}}
    docs = client.create_collection(name, configuration=settings, embedding_function=None)
    while not stop.is_set():
        vectors = [[draw.random() for _ in range(16)] for _ in range(7)]
        try:
            docs.add(ids=[f"{fresh + i}" for i in range(7)], embeddings=vectors)
            live += [f"{fresh + i}" for i in range(7)]
            fresh += 7
            docs.update(ids=draw.sample(live, 3), embeddings=vectors[:3])
            if len(live) > 300:
                gone = draw.sample(live, 5)
                docs.delete(ids=gone)
                live = [id for id in live if id not in gone]
        except Exception as error:
            failed.append(repr(error))
        done[number] += 1
    if docs.count() != len(live):
        failed.append(f"{name}: {docs.count()} of {len(live)} records")

threads = [threading.Thread(target=write, args=job) for job in (("one", 0), ("two", 1))]
for thread in threads:
    thread.start()
print("writing", flush=True)
sys.stdin.read()
stop.set()
for thread in threads:
    thread.join()
print(json.dumps({"failed": failed, "done": done}), flush=True)
"""
HARMLESS = {"elements-unreachable"}
LEVELS = ("probe", "standard", "standard", "deep")


def audit_until(store: Path, end: float) -> Counter[str]:
    """What audits say until then, a word each; whatever is no honest answer is spelt out."""
    said: Counter[str] = Counter()
    number = 0
    while time.time() < end:
        level = LEVELS[number % len(LEVELS)]
        number += 1
        try:
            (found,) = hnswcheck.audit(store, level).stores
        except (hnswcheck.StoreChanged, hnswcheck.SqliteBusy) as error:
            said[f"{level}: {error.finding}"] += 1
            continue
        for segment in found.segments:
            # Chroma's own indexes have elements that no search arrives at.
            ids = {one.id for one in segment.findings if one.severity != "info"} - HARMLESS
            honest = segment.status in ("empty", "consistent", "lagging") and not ids
            changed = segment.status == "undecided" and ids == {"store-changed"}
            known = f"{level}: {segment.status}"
            said[known if honest or changed else f"FALSE ALARM {known} {sorted(ids)}"] += 1
        own = {one.id for one in found.findings} - {"store-changed", "sqlite-busy"}
        if own:
            said[f"FALSE ALARM {level}: {sorted(own)}"] += 1
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--audits", type=int, default=3, help="processes that audit")
    parser.add_argument("--until", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.until:
        store, end = options.until
        print(json.dumps(audit_until(Path(store), float(end))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(store)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            end = time.time() + 60 * options.minutes
            command = [sys.executable, __file__, "--until", str(store), str(end)]
            auditors = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                for _ in range(options.audits)
            ]
            said: Counter[str] = Counter()
            for auditor in auditors:
                said.update(json.loads(auditor.communicate()[0]))
            result = json.loads(writer.communicate("")[0])
        (found,) = hnswcheck.audit(store).stores
    for what, count in sorted(said.items()):
        print(f"{count:9,}  {what}")
    print(f"{sum(result['done']):9,}  rounds of writes, {len(result['failed'])} failures")
    print(f"at the end: {found.verdict}")
    wrong = any(what.startswith("FALSE ALARM") for what in said)
    sys.exit(bool(wrong or result["failed"] or found.verdict != "consistent"))


if __name__ == "__main__":
    main()
