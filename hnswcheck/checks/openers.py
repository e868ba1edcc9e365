"""Can a release of Chroma open the store at all, and which releases can?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.text import text
from hnswcheck.report import Finding, finding
from hnswcheck.store.config_json import settings_in_json, space_in_config
from hnswcheck.store.openers import DEFAULT_BATCH_SIZE, OPENERS, Opener, opener_of, spans
from hnswcheck.store.releases import (
    DEFAULT_SYNC_THRESHOLD,
    Release,
    numbers_of,
    release_for,
    step_of,
)
from hnswcheck.store.schema import Schema
from hnswcheck.store.segment import Peek
from hnswcheck.store.system_tables import Settings, Surroundings, Value

#: What 0.5 and 0.6 write into every configuration of a collection.
TYPE = ("_type", "CollectionConfigurationInternal")
EMPTY = b"{}"
#: Where the configuration of 1.x has the settings of an index.
CONFIGURED = ("vector_index", "hnsw")


class Head(NamedTuple):
    """What decides whether a line can load a collection.

    Attributes:
        is_written: it has a watermark, so that its records have seq_ids.
    """

    peek: Peek
    is_written: bool


def opened_by(schema: Schema, found: Surroundings, release: str | None) -> Schema:
    """The schema with the line of a release as the one that is to open it.

    Where that cannot open the store, what is in it is judged by the ways of who wrote it.

    Args:
        release: one that is known; None for the line that wrote the store.
    """
    if release is None or any(store_faults(opener_of(release), schema, found)):
        return schema
    return replace(schema, opener=release_for(release))


def check_opener(
    found: Surroundings, schema: Schema, release: str | None, sampler: Sampler
) -> Iterator[Finding]:
    """Findings about releases that refuse the store.

    Args:
        release: the one that is to open it; None for the newest that has its migrations.
    """
    judged = opener_of(release or step_of(schema.migrations).last)
    faults = list(store_faults(judged, schema, found)) if release else []
    if faults:
        yield finding("release-refuses", 1, sampler.places(faults), None, release)
    faults = list(settings_faults(judged, schema, found))
    if faults:
        yield finding("settings-refused", len(faults), sampler.places(faults), None, release)
    yield from _check_others(judged, schema, found, sampler)


def _check_others(
    judged: Opener, schema: Schema, found: Surroundings, sampler: Sampler
) -> Iterator[Finding]:
    """Settings that releases refuse which are no older than the store.

    What one release alone refuses is no finding: the list of those that can open it lacks it.
    """
    oldest = numbers_of(step_of(schema.migrations).first)
    # Of the configuration of 1.x some refuse only what a release after them wrote.
    others = [
        o
        for o in OPENERS
        if o is not judged and numbers_of(o.last) >= oldest and not o.orders_configured
    ]
    faults = {o: list(settings_faults(o, schema, found)) for o in others}
    refusing = [o for o in others if faults[o]]
    told = dict.fromkeys(fault for o in refusing if not o.is_single for fault in faults[o])
    if told:
        by = ", ".join(spans(refusing))
        yield finding("settings-refused-elsewhere", len(told), sampler.places(told), None, by)


def store_faults(opener: Opener, schema: Schema, found: Surroundings) -> Iterator[str]:
    """Why releases open no such store, or take its collections for others; a phrase for each."""
    for folder, newest in opener.newest.items():
        if (has := schema.migrations.get(folder, 0)) > newest:
            yield f"migration {has} of {folder!r}: {opener.beyond}"
    if any(migration.is_only_0_4_0 for migration in schema.applied) != opener.of_own_kind:
        yield "migration 1 of 'metadb': Inconsistent MD5 hashes"
    if opener.reads_schemas:
        return
    for one in found.settings:
        known_space = space_in_config(one.config_json_str) or "l2"
        if (space := space_in_config(one.schema_str) or known_space) != known_space:
            yield f"collection {text(one.name)!r}: measures {known_space} instead of {space}"


def settings_faults(opener: Opener, schema: Schema, found: Surroundings) -> Iterator[str]:
    """Which settings of collections releases refuse; a phrase for each."""
    for one in found.settings:
        for fault in _faults_of(opener, schema, one):
            yield f"collection {text(one.name)!r}: {fault}"


def _faults_of(opener: Opener, schema: Schema, one: Settings) -> Iterator[str]:
    if one.config_json_str is None:
        yield from _metadata_faults(opener, one.hnsw)
        return
    empty = one.config_json_str == EMPTY and schema.writer.reader == "python"  # judged elsewhere
    if opener.types_settings and not empty and not _is_typed(one.config_json_str):
        yield "its configuration has no type that the release knows"
    if opener.orders_configured:
        for hnsw in settings_in_json(one.config_json_str, [CONFIGURED]):
            yield from _order_faults(hnsw)


def _metadata_faults(opener: Opener, hnsw: Mapping[str, Value]) -> Iterator[str]:
    if opener.settings is None:
        return
    for name, value in hnsw.items():
        is_right = opener.settings.get(name)
        if is_right is None:
            yield f"unknown setting {name!r}"
        elif not is_right(value):
            yield f"{name!r} is {value!r}"
    if opener.orders_batches:
        yield from _order_faults(hnsw, "hnsw:")


def _order_faults(hnsw: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    batch = hnsw.get(f"{prefix}batch_size", DEFAULT_BATCH_SIZE)
    sync = hnsw.get(f"{prefix}sync_threshold", DEFAULT_SYNC_THRESHOLD)
    if isinstance(batch, int) and isinstance(sync, int) and batch > sync:
        yield f"'{prefix}batch_size' {batch} is more than '{prefix}sync_threshold' {sync}"


def _is_typed(config: object) -> bool:
    """Whether it is what 0.5 and 0.6 wrote; of what is no JSON object another check tells."""
    try:
        node = json.loads(config) if isinstance(config, bytes) else None
    except (ValueError, RecursionError):
        return True
    return not isinstance(node, dict) or TYPE in node.items()


def releases_that_open(
    schema: Schema, found: Surroundings, heads: Iterable[Head]
) -> tuple[str, ...] | None:
    """The releases that open a store and every collection in it, if it is not damaged.

    None where it has migrations that no known release has: nobody can have tried.

    Args:
        heads: of its collections.
    """
    if schema.foreign:
        return None
    seen = list(heads)
    written = any(head.is_written for head in seen)
    numbers = written and schema.writer.watermark_type == "INTEGER"

    def can(opener: Opener) -> bool:
        if any(store_faults(opener, schema, found)) or any(settings_faults(opener, schema, found)):
            return False
        row = opener.release
        if numbers and "integer" not in row.watermark_forms:
            return False
        return all(_is_readable(head.peek, row) for head in seen)

    return spans([opener for opener in OPENERS if can(opener)])


def _is_readable(peek: Peek, row: Release) -> bool:
    """Whether a line loads an id map."""
    if peek.shape == "dict" and row.id_map == "instance":
        return False
    without = peek.total_elements_added is not None and peek.max_seq_id is None
    return not (row.watermark_in == "id map" and without)
