"""An error keeps its class, attributes and exit code wherever it goes and whatever it says."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from hnswcheck.auditing.runner import report_of_failure
from hnswcheck.errors import (
    FormatError,
    HnswcheckError,
    StoreUnreadable,
    UsageError,
    VectorsNotFinite,
    naming,
)
from hnswcheck.guarding import StoreBroken, StoreDamaged, StoreUndecided
from hnswcheck.isolation import call_in_child
from hnswcheck.report import Level, Report

REPORT = Report((report_of_failure(Path("a-store"), Level.PROBE, FormatError("cut off")),))


def kinds(base: type[HnswcheckError] = HnswcheckError) -> Iterator[type[HnswcheckError]]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def example(kind: type[HnswcheckError]) -> HnswcheckError:
    if kind is VectorsNotFinite:
        return VectorsNotFinite([2, 7])
    if issubclass(kind, StoreBroken):
        return kind(REPORT, REPORT)
    if issubclass(kind, (StoreDamaged, StoreUndecided)):
        return kind(REPORT)
    return kind("the header is cut off")


KINDS = sorted(set(kinds()), key=lambda kind: kind.__name__)


def state(error: HnswcheckError) -> tuple[object, ...]:
    return type(error), error.args, str(error), error.exit_code, error.finding, vars(error)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_says_something_else_is_the_same_error(kind: type[HnswcheckError]) -> None:
    error = example(kind)
    other = error.saying("another message")
    assert str(other) == "another message"
    assert other is not error
    assert (type(other), vars(other)) == (kind, vars(error))
    assert (other.exit_code, other.finding) == (error.exit_code, error.finding)
    assert str(error) == str(example(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_names_its_path_once(kind: type[HnswcheckError]) -> None:
    error = example(kind)
    named = error.within(Path("a/store"))
    assert str(named) == f"a/store: {error}"
    assert (type(named), vars(named)) == (kind, vars(error))
    assert named.within("a/store") is named


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_process_borders_whole(kind: type[HnswcheckError]) -> None:
    for error in (example(kind), example(kind).saying("another"), example(kind).within("a/store")):
        assert state(pickle.loads(pickle.dumps(error))) == state(error)  # noqa: S301
        assert state(copy.copy(error)) == state(error)


def refuse(positions: Sequence[int]) -> None:
    raise VectorsNotFinite(positions).within("a/store")


def test_vectors_that_are_not_finite_are_named_in_the_process_that_asked() -> None:
    with pytest.raises(VectorsNotFinite) as caught:
        call_in_child(refuse, ([2, 7],), None)
    assert str(caught.value) == "a/store: 2 vectors are not finite, at 2, 7"
    assert caught.value.positions == (2, 7)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FormatError("cut off"), "a/store: cut off"),
        (StoreUnreadable("a/store/header.bin: denied"), "a/store/header.bin: denied"),
        (UsageError("no such level"), "no such level"),
        (VectorsNotFinite([3]), "1 vectors are not finite, at 3"),
    ],
)
def test_naming_adds_the_path_where_the_error_is_about_a_store(
    error: HnswcheckError, said: str
) -> None:
    with pytest.raises(type(error)) as caught, naming("a/store"):
        raise error
    assert str(caught.value) == said
    assert caught.value.__cause__ is (None if caught.value is error else error)
