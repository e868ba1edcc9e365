"""What the JSON columns of collections say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator


def space_in_config(config: object) -> str | None:
    """The distance in a JSON configuration: ``schema_str`` of 1.5, ``config_json_str`` before."""
    try:
        node = json.loads(config) if isinstance(config, bytes) else None
    except (ValueError, RecursionError):
        return None
    for path in (
        ("keys", "#embedding", "float_list", "vector_index", "config", "space"),
        ("vector_index", "hnsw", "space"),
        ("hnsw_configuration", "space"),
        ("hnsw", "space"),
    ):
        value = node
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value
    return None


def settings_in_json(
    value: object, places: Iterable[tuple[str, ...]]
) -> Iterator[dict[str, object]]:
    """The objects at these places of a JSON text; none where it is no JSON object."""
    try:
        node = json.loads(value) if isinstance(value, bytes) else None
    except (ValueError, RecursionError):
        return
    for path in places:
        found = node
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            yield found
