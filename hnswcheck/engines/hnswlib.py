"""hnswlib as a second reader of an index, in a process of its own that may die."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from multiprocessing.spawn import get_executable
from pathlib import Path

from hnswcheck.formats.header import LAYOUT, Header
from hnswcheck.formats.hnswlib_file import VERSION_BYTES
from hnswcheck.formats.link_lists import LinkLists
from hnswcheck.formats.segment_files import HEADER, LEVEL0, LINKS
from hnswcheck.store.segment import Advance, SegmentFolder

#: What loading may take. Slow disks and busy machines are no fault of the index.
FIXED_SECONDS, BYTES_PER_SECOND = 60.0, 10_000_000

FIXED_MEMORY, MEMORY_PER_BYTE = 1 << 30, 3

LOADER = """
import json, sys
job = json.loads(sys.argv[1])
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (job["memory"], job["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError):
    pass
try:
    import hnswlib, numpy
except ImportError as error:
    print(json.dumps({"unable": str(error)}), flush=True)
    sys.exit()
if hasattr(hnswlib.Index, "persist_dirty"):
    print(json.dumps({"unable": "chroma-hnswlib is installed in the place of hnswlib"}), flush=True)
    sys.exit()
print(json.dumps({"loading": True}), flush=True)
index = hnswlib.Index(space=job["space"], dim=job["dimension"])
index.load_index(job["path"], job["count"])
numpy.sort(numpy.array(index.get_ids_list(), numpy.uint64)).tofile(job["path"] + ".labels")
items = numpy.array(index.get_items(job["labels"]), numpy.float32) if job["labels"] else []
found = 0
if len(items):
    items.tofile(job["path"] + ".items")
    index.set_num_threads(1)
    for item, own in zip(items, job["labels"]) if job["space"] != "ip" else ():
        try:
            labels, distances = index.knn_query(item, k=1)
        except RuntimeError:  # it arrived at deleted elements only
            continue
        found += int(labels[0, 0] == own or distances[0, 0] <= 1e-6)
print(json.dumps({"count": index.get_current_count(), "found": found}), flush=True)
"""


class NotAsked(Exception):
    """hnswlib could not be asked, for a reason that is not the index's."""


def has_hnswlib() -> bool:
    """Whether hnswlib is installed."""
    return find_spec("hnswlib") is not None


def write_hnswlib_file(
    folder: SegmentFolder, header: Header, links: LinkLists, path: Path, advance: Advance
) -> None:
    """The files of a segment as the one file that hnswlib loads."""
    parts = (
        (HEADER, VERSION_BYTES, LAYOUT.size - VERSION_BYTES),
        (LEVEL0, 0, header.count * header.stride),
        (LINKS, 0, links.used_bytes),
    )
    with path.open("wb") as target:
        for name, start, size in parts:
            with (folder.path / name).open("rb") as source:
                source.seek(start)
                while size and (chunk := source.read(min(size, 1 << 20))):
                    target.write(chunk)
                    advance(len(chunk))
                    size -= len(chunk)


def ask_hnswlib(job: dict[str, object], seconds: float) -> dict[str, int] | str:
    """What the loader answers, or how it failed."""
    command = [os.fsdecode(get_executable() or sys.executable), "-P", "-c", LOADER, json.dumps(job)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, check=False)
    except OSError as error:
        raise NotAsked(f"no Python could be started: {error.strerror or error}") from error
    except subprocess.TimeoutExpired:
        raise NotAsked(f"no answer for {seconds:.0f} s") from None
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last: dict[str, int] = lines[-1] if lines else {}
    if "count" in last:
        return last
    says = (done.stderr.decode(errors="replace").splitlines() or [""])[-1]
    if "loading" not in last or "MemoryError" in says or "Not enough memory" in says:
        raise NotAsked(str(last.get("unable") or says or "its process did not start"))
    return f"signal {-done.returncode}" if done.returncode < 0 else says
