"""Opcodes as pickletools reads them, without running any."""

from __future__ import annotations

import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hnswcheck.formats.pickle_tokens import Damage, tokenise

KEYS = st.text(max_size=20)
NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)
#: What id maps are made of: dicts of strings and numbers, within a dict.
TREES = st.dictionaries(KEYS, NUMBERS | st.none() | st.dictionaries(KEYS, NUMBERS), max_size=8)
#: Not of the content: framing and the memo.
PLUMBING = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT"}
CODES = {op.name: ord(op.code) for op in pickletools.opcodes}


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


@given(TREES)
def test_tokens_are_those_of_pickletools(tree: dict[str, object]) -> None:
    data = pickle.dumps(tree, protocol=4)
    expected = content(data)
    tokens, problem = tokenise(data)
    assert problem is None
    everything = np.arange(len(tokens))
    strings, integers = tokens.are_strings(everything), tokens.are_ints(everything)
    assert len(tokens) == len(expected)
    for at, (name, argument) in enumerate(expected):
        assert strings[at] == (name == "string")
        if name == "string":
            begin, size = tokens.spans(np.array([at]))
            shown = tokens.data[int(begin[0]) : int(begin[0] + size[0])].tobytes()
            assert shown == str(argument).encode("utf-8", "surrogatepass")
        elif integers[at]:
            assert tokens.numbers(np.array([at])).tolist() == [argument]
        else:
            assert int(tokens.op[at]) == CODES[name]


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
