"""The table of effects, row by row, against two models of Chroma that do not know it.

What the engines themselves do with the same rows is in tests/agreement.
"""

from __future__ import annotations

import itertools

import chroma_model
import model
import pytest
from synthetic import Op

from hnswcheck.replay.effects import (
    Effect,
    Element,
    effect_on_element,
    effect_on_index,
    effect_on_record,
)
from hnswcheck.store.releases import RELEASES
from hnswcheck.store.wal import OPERATIONS, Operation, WalRow

CREATES, WRITES, CHANGES, DELETES = Effect.CREATES, Effect.WRITES, Effect.CHANGES, Effect.DELETES
IGNORED, DISPUTED, FAILS, UNKNOWN = Effect.IGNORED, Effect.DISPUTED, Effect.FAILS, Effect.UNKNOWN
OLD, NEW = ("0.4", "0.5.3", "0.5.5", "0.6"), ("1.0", "1.2", "1.3", "1.4", "1.5")

each_line = pytest.mark.parametrize("line", RELEASES)


def row(
    operation: Operation | None, *, has_vector: bool = True, obscure: bool = False, seq_id: int = 9
) -> WalRow:
    return WalRow(
        seq_id=seq_id,
        operation=operation,
        id=b"r",
        vector_bytes=12 if has_vector else None,
        fault=None,
        obscure=obscure,
    )


@pytest.mark.parametrize(
    ("operation", "absent", "present"),
    [
        ("add", CREATES, IGNORED),
        ("update", IGNORED, CHANGES),
        ("upsert", CREATES, CHANGES),
        ("delete", IGNORED, DELETES),
        ("backfill", IGNORED, IGNORED),
        (None, UNKNOWN, UNKNOWN),
    ],
)
@pytest.mark.parametrize("has_vector", [True, False])
def test_a_record_is_made_changed_and_deleted_whatever_the_vector_is(
    operation: Operation | None, absent: Effect, present: Effect, has_vector: bool
) -> None:
    for obscure in (False, True):
        one = row(operation, has_vector=has_vector, obscure=obscure)
        assert effect_on_record(one, False) is absent
        assert effect_on_record(one, True) is present


@pytest.mark.parametrize(
    ("lines", "operation", "has_vector", "absent", "present"),
    [
        (OLD, "add", True, CREATES, DISPUTED),
        (NEW, "add", True, CREATES, IGNORED),
        (OLD, "add", False, IGNORED, IGNORED),
        (NEW, "add", False, FAILS, IGNORED),
        (OLD + NEW, "update", True, IGNORED, WRITES),
        (OLD + NEW, "update", False, IGNORED, IGNORED),
        (OLD + NEW, "upsert", True, CREATES, WRITES),
        (OLD, "upsert", False, IGNORED, IGNORED),
        (NEW, "upsert", False, FAILS, FAILS),
        (OLD + NEW, "delete", False, IGNORED, DELETES),
        (OLD + NEW, None, True, UNKNOWN, UNKNOWN),
        (OLD + NEW, None, False, UNKNOWN, UNKNOWN),
    ],
)
def test_the_index_takes_vectors_and_nothing_else(
    lines: tuple[str, ...],
    operation: Operation | None,
    has_vector: bool,
    absent: Effect,
    present: Effect,
) -> None:
    for line in lines:
        release = RELEASES[line]
        assert effect_on_index(row(operation, has_vector=has_vector), False, release) is absent
        assert effect_on_index(row(operation, has_vector=has_vector), True, release) is present


@each_line
@pytest.mark.parametrize("exists", [True, False, None])
def test_a_backfill_changes_no_index(line: str, exists: bool | None) -> None:
    assert effect_on_index(row("backfill", has_vector=False), exists, RELEASES[line]) is IGNORED


@each_line
@pytest.mark.parametrize("operation", OPERATIONS)
def test_of_an_id_of_which_nobody_knows_a_row_says_what_it_does_in_either_case(
    line: str, operation: Operation
) -> None:
    release = RELEASES[line]
    for has_vector in (True, False):
        one = row(operation, has_vector=has_vector)
        record = effect_on_record(one, True) | effect_on_record(one, False)
        assert effect_on_record(one, None) is record
        index = effect_on_index(one, True, release) | effect_on_index(one, False, release)
        assert effect_on_index(one, None, release) is index


@each_line
@pytest.mark.parametrize("operation", ["add", "update", "upsert"])
def test_what_a_row_does_to_the_index_whose_vector_nobody_can_read_is_unknown(
    line: str, operation: Operation
) -> None:
    for exists in (True, False, None):
        one = row(operation, has_vector=False, obscure=True)
        assert effect_on_index(one, exists, RELEASES[line]) is UNKNOWN


@pytest.mark.parametrize(
    ("effect", "element", "old", "new"),
    [
        (CREATES, Element.ABSENT, CREATES, CREATES),
        (CREATES, Element.DELETED, CREATES, FAILS),
        (CREATES, Element.LIVE, CREATES, CREATES),
        (WRITES, Element.ABSENT, WRITES, WRITES),
        (WRITES, Element.DELETED, WRITES, FAILS),
        (WRITES, Element.LIVE, WRITES, WRITES),
        (DELETES, Element.ABSENT, FAILS, FAILS),
        (DELETES, Element.DELETED, FAILS, FAILS),
        (DELETES, Element.LIVE, DELETES, DELETES),
        (IGNORED, Element.ABSENT, IGNORED, IGNORED),
        (IGNORED, Element.DELETED, IGNORED, IGNORED),
        (IGNORED, Element.LIVE, IGNORED, IGNORED),
        (FAILS, Element.LIVE, FAILS, FAILS),
    ],
)
def test_an_element_that_is_not_live_refuses_what_the_line_cannot_do_to_it(
    effect: Effect, element: Element, old: Effect, new: Effect
) -> None:
    for line, release in RELEASES.items():
        expected = old if line in OLD else new
        assert effect_on_element(effect, element, release) is expected, line


# --- The models ----------------------------------------------------------------------------------

#: Rows that a client can write: only an update can come without a vector.
WRITABLE = [
    (operation, exists, has_vector)
    for operation, exists, has_vector in itertools.product(OPERATIONS, (False, True), (False, True))
    if has_vector == (operation != "delete") or operation == "update"
]


def of_model(index: chroma_model.Index, one: chroma_model.Row) -> Effect:
    """What a model of 1.x says that a row does to its id."""
    before = index.labels.get(one.id)
    try:
        index.apply([one])
    except chroma_model.Blocked:
        return FAILS
    after = index.labels.get(one.id)
    if after is None:
        return IGNORED if before is None else DELETES
    if index.elements[after].written_by != one.seq_id:
        return IGNORED
    return CREATES if before is None else WRITES


@pytest.mark.parametrize(("operation", "exists", "has_vector"), WRITABLE)
@pytest.mark.parametrize("live", [True, False])
def test_the_model_of_1_x_has_these_effects_on_its_index(
    operation: Operation, exists: bool, has_vector: bool, live: bool
) -> None:
    release = RELEASES["1.5"]
    index = chroma_model.Index({"r": 1}, {1: chroma_model.Element(live, 1)}, 1)
    if not exists:
        index = chroma_model.Index()
    expected = effect_on_index(row(operation, has_vector=has_vector), exists, release)
    if exists and not live:
        expected = effect_on_element(expected, Element.DELETED, release)
    assert of_model(index, chroma_model.Row(9, Op[operation.upper()], "r", has_vector)) is expected


@each_line
@pytest.mark.parametrize(("operation", "exists", "has_vector"), WRITABLE)
def test_the_model_of_each_line_has_these_effects_on_ids(
    line: str, operation: Operation, exists: bool, has_vector: bool
) -> None:
    ledger = model.ledger_for(line)(1000, 1, False)
    ledger.write([model.Row(seq_id, "add", f"other{seq_id}", True) for seq_id in range(1, 5)])
    if exists:
        ledger.write([model.Row(5, "add", "r", True)])
    assert ("r" in ledger.records) is ("r" in ledger.memory.labels) is exists
    ledger.write([model.Row(9, operation, "r", has_vector)])
    one = row(operation, has_vector=has_vector)
    there_after = {CREATES: True, DELETES: False}
    on_record = effect_on_record(one, exists)
    assert ("r" in ledger.records) is there_after.get(on_record, exists)
    on_index = effect_on_index(one, exists, RELEASES[line])
    assert ("r" in ledger.memory.labels) is there_after.get(on_index, exists)
