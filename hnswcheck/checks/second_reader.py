"""A second reader: does hnswlib itself load the segment, and read what we read?

The four files become the one file that PyPI's ``hnswlib`` loads (the same fields and records, see
``saveIndex`` in nmslib/hnswlib, ``hnswlib/hnswalg.h``), in a process that may die of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from multiprocessing.spawn import get_executable
from pathlib import Path

import numpy as np

from hnswcheck.formats.header import LAYOUT, Header
from hnswcheck.formats.hnswlib_file import VERSION_BYTES
from hnswcheck.formats.labels import find_labels
from hnswcheck.formats.level0 import Elements, read_vectors
from hnswcheck.formats.link_lists import LinkLists
from hnswcheck.formats.strings import Ints
from hnswcheck.report import Finding, finding
from hnswcheck.store.scratch import scratch_directory
from hnswcheck.store.segment import HEADER, LEVEL0, LINKS, Advance, SegmentFolder

#: So many elements are asked for and searched for.
SAMPLE = 256
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


def engine_is_there() -> bool:
    """Whether hnswlib is installed."""
    return find_spec("hnswlib") is not None


def check_engine(
    folder: SegmentFolder,
    header: Header,
    elements: Elements,
    links: LinkLists,
    space: str,
    advance: Advance,
) -> Iterator[Finding]:
    """Findings of loading a segment into hnswlib.

    Raises:
        NotAsked: it is not installed, or there is no room for it.
        OSError: files could not be read.
    """
    if not header.count:
        return
    if not engine_is_there():
        raise NotAsked("hnswlib is not installed; there is an extra: hnswcheck[engine]")
    size = LAYOUT.size - VERSION_BYTES + header.count * header.stride + links.used_bytes
    sample = _sample(elements)
    with scratch_directory(folder.path.parent) as scratch:
        if size > shutil.disk_usage(scratch).free // 2:
            raise NotAsked(f"{size} bytes of scratch space are needed")
        path = scratch / "index.bin"
        _convert(folder, header, links, path, advance)
        job = {
            "path": str(path),
            "space": space,
            "dimension": header.dimension,
            "count": header.count,
            "labels": elements.labels[sample].tolist(),
            "memory": FIXED_MEMORY + MEMORY_PER_BYTE * size,
        }
        answer = _run(job, FIXED_SECONDS + size / BYTES_PER_SECOND)
        if isinstance(answer, str):
            yield finding("engine-disagrees", 1, (), "an index that hnswlib loads", answer)
            return
        labels = np.fromfile(f"{path}.labels", np.uint64)
        differing = [] if np.array_equal(labels, np.unique(elements.labels)) else ["labels"]
        if answer["count"] != header.count:
            differing.append("count")
        if len(sample):
            items = np.fromfile(f"{path}.items", np.float32).reshape(len(sample), -1)
            ours = read_vectors(folder.path / LEVEL0, header, sample)
            if items.tobytes() != ours.tobytes():
                differing.append("vectors")
    if differing:
        yield finding("engine-disagrees", len(differing), differing)
    missed = len(sample) - answer["found"]
    if missed and space != "ip":
        found = f"{missed / len(sample):.1%} of {len(sample)} searches for their own vector"
        yield finding("searches-miss", missed, (), "none, or a few", found)


def _sample(elements: Elements) -> Ints:
    """Live elements, evenly spread, whose label no other has."""
    own = find_labels(elements.labels, elements.labels) == np.arange(len(elements.labels))
    live = np.flatnonzero(own & ~elements.tombstoned)
    return (
        live[np.unique(np.linspace(0, len(live) - 1, SAMPLE).astype(np.int64))]
        if len(live)
        else live
    )


def _convert(
    folder: SegmentFolder, header: Header, links: LinkLists, path: Path, advance: Advance
) -> None:
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


def _run(job: dict[str, object], seconds: float) -> dict[str, int] | str:
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
