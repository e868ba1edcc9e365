"""Opcodes as pickletools reads them, without running any."""

from __future__ import annotations

import pickle
import pickletools
import tarfile

import numpy as np
import pytest
from catalogue import ARCHIVE
from hypothesis import given
from hypothesis import strategies as st
from stores import PLACES

from hnswcheck.formats.pickle_tokens import Damage, tokenise

KEYS = st.text(max_size=20)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
#: What id maps are made of: dicts of strings and numbers, within a dict.
TREES = st.dictionaries(KEYS, NUMBERS | st.none() | st.dictionaries(KEYS, NUMBERS), max_size=8)
#: Id maps that are long enough for runs, with ids and numbers of other widths anywhere in them.
MAPS = st.builds(
    lambda length, first, other: dict(
        sorted(
            {f"id{n}": first + n for n in range(length)}.items() | other.items(),
            key=lambda pair: hash(pair[1]) % 97,
        )
    ),
    st.integers(30, 120),
    st.sampled_from([0, 1, 200, 65_500, (1 << 31) - 50]),
    st.dictionaries(KEYS | st.just("x" * 300), NUMBERS, max_size=6),
)
INTEGERS = {"BININT1", "BININT2", "BININT", "LONG1"}
#: Not of the content: framing and the memo.
PLUMBING = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT"}
NAME_OF_CODE = {ord(op.code): op.name for op in pickletools.opcodes}


def content(data: bytes) -> list[tuple[str, object]]:
    """pickletools' opcodes without plumbing, a get replaced by the string that it gets."""
    memo: list[object] = []
    last: object = None
    found: list[tuple[str, object]] = []
    for op, argument, _ in pickletools.genops(data):
        if op.name == "MEMOIZE":
            memo.append(last)
        elif op.name in ("BINGET", "LONG_BINGET"):
            assert isinstance(argument, int)
            found.append(("string", memo[argument]))
        elif op.name not in PLUMBING:
            last = argument
            is_string = op.name in ("BINUNICODE", "SHORT_BINUNICODE")
            found.append(("string" if is_string else op.name, argument))
    return found


def agrees(data: bytes) -> bool:
    """Whether this reader accepts a file; its tokens must then be those of pickletools."""
    tokens, problem = tokenise(data)
    if problem is not None:
        return False
    everything = np.arange(len(tokens))
    strings, integers = tokens.are_strings(everything), tokens.are_ints(everything)
    begins, sizes = tokens.spans(everything[strings])
    texts = iter(zip(begins.tolist(), sizes.tolist(), strict=True))
    numbers = iter(tokens.numbers(everything[integers]).tolist())
    found: list[tuple[str, object]] = []
    for op, is_string, is_int in zip(tokens.op.tolist(), strings, integers, strict=True):
        if is_string:
            begin, size = next(texts)
            text = tokens.data[begin : begin + size].tobytes()
            found.append(("string", text.decode("utf-8", "surrogatepass")))
        else:
            found.append((NAME_OF_CODE[op], next(numbers) if is_int else None))
    assert found == [
        (name, argument if name == "string" or name in INTEGERS else None)
        for name, argument in content(data)
    ]
    return True


@given(TREES)
def test_tokens_are_those_of_pickletools(tree: dict[str, object]) -> None:
    assert agrees(pickle.dumps(tree, protocol=4))


@given(MAPS, st.sampled_from([4, 5]))
def test_tokens_of_long_runs_are_those_of_pickletools(pairs: dict[str, int], protocol: int) -> None:
    """A map this long is cut a run at a time; a number or an id of another width ends a run."""
    tree = {"id_to_label": pairs, "label_to_id": {number: id for id, number in pairs.items()}}
    assert agrees(pickle.dumps(tree, protocol=protocol))


def test_tokens_of_every_id_map_of_the_corpus_are_those_of_pickletools() -> None:
    assert sum(agrees(data) for data in id_maps_of_the_corpus()) > 100


def id_maps_of_the_corpus() -> set[bytes]:
    """The content of each, equal ones once."""
    found: set[bytes] = set()
    for place in PLACES.values():
        with tarfile.open(place.file(ARCHIVE)) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith("/index_metadata.pickle"):
                    file = archive.extractfile(member)
                    assert file is not None
                    found.add(file.read())
    return found


@given(TREES, st.data())
def test_a_cut_file_yields_the_tokens_before_the_cut(
    tree: dict[str, object], data: st.DataObject
) -> None:
    whole = pickle.dumps(tree, protocol=4)
    cut = data.draw(st.integers(0, len(whole) - 1))
    all_tokens, _ = tokenise(whole)
    tokens, problem = tokenise(whole[:cut])
    assert problem is not None
    assert problem.damage is Damage.TRUNCATED
    assert tokens.op.tolist() == all_tokens.op[: len(tokens)].tolist()
    assert tokens.start.tolist() == all_tokens.start[: len(tokens)].tolist()


@pytest.mark.parametrize(
    "value", [0, 255, 256, 65535, 65536, -1, 1 << 31, -(1 << 63), (1 << 63) - 1]
)
def test_a_number_of_any_width_is_read(value: int) -> None:
    tokens, problem = tokenise(pickle.dumps(value, protocol=4))
    assert problem is None
    assert tokens.numbers(np.array([0])).tolist() == [value]


@pytest.mark.parametrize("value", [1 << 63, 1.5, b"bytes", [], (1, 2), True, {1, 2}])
def test_what_no_id_map_holds_stops_the_reading(value: object) -> None:
    _, problem = tokenise(pickle.dumps(value, protocol=4))
    assert problem is not None
    assert problem.damage is not Damage.TRUNCATED


@pytest.mark.parametrize("get", [b"h\x00", b"j\x05\x00\x00\x00", b"h\x01"])
def test_a_get_of_what_is_no_string_is_unsafe(get: bytes) -> None:
    """The memo holds one dict here: h 0 gets it, the others get nothing."""
    _, problem = tokenise(b"\x80\x04}\x94" + get + b".")
    assert problem is not None
    assert problem.damage is Damage.UNSAFE
