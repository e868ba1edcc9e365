"""What the JSON columns of collections say, in the places where releases write it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hnswcheck.store.config_json import settings_in_json, space_in_config


def nested(*keys: str, value: object) -> bytes:
    found: Any = value
    for key in reversed(keys):
        found = {key: found}
    return json.dumps(found).encode()


PLACES = [
    ("keys", "#embedding", "float_list", "vector_index", "config", "space"),
    ("vector_index", "hnsw", "space"),
    ("hnsw_configuration", "space"),
    ("hnsw", "space"),
]


@pytest.mark.parametrize("place", PLACES)
def test_the_space_is_found_where_a_release_writes_it(place: tuple[str, ...]) -> None:
    assert space_in_config(nested(*place, value="cosine")) == "cosine"


@pytest.mark.parametrize("place", PLACES)
def test_a_space_of_another_type_is_none(place: tuple[str, ...]) -> None:
    for value in (None, 1, ["l2"], {"l2": 1}):
        assert space_in_config(nested(*place, value=value)) is None


def test_the_newest_place_comes_first() -> None:
    both = {"hnsw": {"space": "l2"}, "vector_index": {"hnsw": {"space": "ip"}}}
    assert space_in_config(json.dumps(both).encode()) == "ip"


BROKEN = [None, "a str", 7, b"", b"{", b"\xff", b"[" * 100_000, b"[]", b"1", b"{}", b'{"hnsw": 3}']


@pytest.mark.parametrize("value", BROKEN, ids=lambda value: repr(value)[:12])
def test_what_is_no_json_object_says_nothing(value: object) -> None:
    assert space_in_config(value) is None
    assert list(settings_in_json(value, [("hnsw",), ("a", "b")])) == []


def test_settings_come_in_the_order_of_the_places() -> None:
    value = json.dumps({"a": {"b": {"x": 1}}, "c": {"y": 2}, "d": 3}).encode()
    places = [("c",), ("d",), ("a", "b"), ("a", "z"), ("d", "e")]
    assert list(settings_in_json(value, places)) == [{"y": 2}, {"x": 1}]
