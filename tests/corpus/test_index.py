"""The corpus is indexed by finding, and its near misses stay misses."""

from __future__ import annotations

import index
import pytest
from catalogue import ARCHIVE, CORPUS, EXPECTATION
from stores import NAMES, PLACES, expectation

from hnswcheck.findings import REGISTRY

NEAR_MISSES = [name for name in NAMES if "near" in expectation(name)]


def test_the_index_is_what_the_expectations_say() -> None:
    assert index.INDEX.read_text("utf-8") == index.rendered()


def test_every_finding_of_the_index_is_registered() -> None:
    headings = [line[3:] for line in index.rendered().splitlines() if line.startswith("## ")]
    assert headings[-1] == "No finding"
    assert set(headings[:-1]) <= set(REGISTRY)


def test_what_is_made_as_a_near_miss_names_the_finding_that_it_misses() -> None:
    called = {name for name in NAMES if "near miss" in expectation(name)["made"]}
    assert called == set(NEAR_MISSES)
    assert len(called) >= 35


@pytest.mark.parametrize("name", NEAR_MISSES)
def test_no_near_miss_has_the_finding_that_it_misses(name: str) -> None:
    missed = expectation(name)["near"]
    assert missed in REGISTRY
    at_once, deep = index.findings_of(expectation(name))
    assert missed not in at_once | deep


def test_an_archive_and_an_expectation_are_there_for_every_store() -> None:
    there = {path for path in CORPUS.rglob("*") if path.is_file()} - {index.INDEX}
    assert there == {place.file(end) for place in PLACES.values() for end in (ARCHIVE, EXPECTATION)}
