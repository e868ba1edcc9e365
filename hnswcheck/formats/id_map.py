"""index_metadata.pickle: which record id has which label.

Nothing is unpickled. The file is cut into opcodes (:mod:`hnswcheck.formats.pickle_tokens`) and
read as what one of Chroma's two writers produces:

* 1.x, ``serde_pickle::to_writer`` of ``IdMap`` (rust/segment/src/local_hnsw.rs): protocol 3, a
  plain dict, strings as BINUNICODE, no memo; open pull requests of chroma-core/chroma add
  ``checkpoint_seq_id`` to it, which releases up to 1.5.9 ignore;
* 0.4 to 0.6, ``pickle.dump`` of ``PersistentData`` (chromadb/segment/impl/vector/
  local_persistent_hnsw.py): protocol 5, an instance whose state is such a dict, with MEMOIZE after
  every object and gets of memoised strings.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hnswcheck.formats.arrays import Flags, Ints
from hnswcheck.formats.pickle_tokens import (
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    MARK,
    NEWOBJ,
    NONE,
    SETITEM,
    SETITEMS,
    STACK_GLOBAL,
    STOP,
    Damage,
    Problem,
    Tokens,
    tokenise,
)
from hnswcheck.formats.strings import Strings
from hnswcheck.formats.text import text

Shape = Literal["dict", "instance"]

PERSISTENT_DATA = (b"chromadb.segment.impl.vector.local_persistent_hnsw", b"PersistentData")
#: Labels are u32 in 1.x.
LARGEST_LABEL = (1 << 32) - 1
LARGEST_SEQ_ID = (1 << 63) - 1
#: Enough to read the counts, which come before the maps.
HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Pairs:
    """One of the two maps: ``ids[i]`` belongs to ``labels[i]`` (int64, shape (n,))."""

    ids: Strings
    labels: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """What an index_metadata.pickle says, or what it says before the place where it is cut.

    Attributes:
        shape: "dict" as 1.x writes it, "instance" as 0.4 to 0.6 do.
        dimensionality: None is usual in 1.x.
        total_elements_added: labels ever handed out; None if the file is cut before it.
        max_seq_id: the watermark of 0.4; a leftover elsewhere.
        checkpoint: the last operation that index and map reflect, where the writer says so.
        id_to_label, label_to_id: the two maps, each in the order of the file.
        problem: None for a whole file.
        ids_whole: id_to_label is, though the file may end after it.
        seq_ids: the last operation on each id, with its seq_id for a label; None in 1.x.
    """

    shape: Shape | None
    dimensionality: int | None
    total_elements_added: int | None
    max_seq_id: int | None
    id_to_label: Pairs
    label_to_id: Pairs
    problem: Problem | None
    ids_whole: bool = True
    checkpoint: int | None = None
    seq_ids: Pairs | None = None


def decode_id_map(data: bytes) -> IdMap:
    """Decode a pickle, whole or cut.

    Time and memory are a small multiple of ``len(data)``, whatever it holds. Never raises for
    what is in ``data``: see ``IdMap.problem``.
    """
    tokens, problem = tokenise(data)
    parser = _Parser(tokens=tokens)
    try:
        parser.parse()
    except _Cut as cut:
        problem = problem or cut.problem
    except _Wrong as wrong:
        # What ends a cut file looks wrong as well: an earlier fault explains a later one.
        if problem is None or wrong.problem.offset < problem.offset:
            problem = wrong.problem
    return parser.result(problem)


class _Wrong(Exception):
    def __init__(self, offset: int, text: str, damage: Damage = Damage.INVALID) -> None:
        self.problem = Problem(damage, offset, text)


class _Cut(_Wrong):
    def __init__(self, offset: int) -> None:
        super().__init__(offset, "the file ends inside the id map", Damage.TRUNCATED)


@dataclass(slots=True, kw_only=True)
class _Parser:
    tokens: Tokens
    position: int = 0
    shape: Shape | None = None
    scalars: dict[bytes, int | None] = field(default_factory=dict)
    maps: dict[bytes, array[int]] = field(default_factory=dict)  # begin, end, begin, end, ...
    batch_ends: list[int] = field(default_factory=list)

    def parse(self) -> None:
        self.batch_ends = np.flatnonzero(self.tokens.op == SETITEMS).tolist()
        if self._peek() == EMPTY_DICT:
            self.shape = "dict"
            self._state()
        else:
            self._instance_head()
            self.shape = "instance"
            self._state()
            self._expect(BUILD, "BUILD")
        self._expect(STOP, "the end")
        self._require_fields()

    def _require_fields(self) -> None:
        """Every field that both writers write, of its type; numbers are unsigned."""
        for name in (b"id_to_label", b"label_to_id", b"id_to_seq_id"):
            if name not in self.maps:
                raise self._wrong(f"the id map has no map {name.decode()}")
        if self.scalars.get(b"total_elements_added") is None:
            raise self._wrong("the id map has no number total_elements_added")
        if b"dimensionality" not in self.scalars:
            raise self._wrong("the id map has no dimensionality")
        if b"max_seq_id" in self.maps:
            raise self._wrong("max_seq_id is a map")
        for name, value in self.scalars.items():
            if value is not None and value < 0:
                raise self._wrong(f"{text(name)} is {value}")

    def _instance_head(self) -> None:
        for expected in PERSISTENT_DATA:
            if self._string("a dict or PersistentData") != expected:
                raise self._wrong("a class that is not PersistentData", Damage.UNSAFE)
        for code in (STACK_GLOBAL, EMPTY_TUPLE, NEWOBJ):
            self._expect(code, "PersistentData")

    def _state(self) -> None:
        """The attributes: a dict of numbers and of maps."""
        self._expect(EMPTY_DICT, "a dict")
        self._expect(MARK, "attributes")
        while self._peek() != SETITEMS:
            key = self._string("the name of an attribute")
            match self._peek():
                case code if code == EMPTY_DICT:
                    self.position += 1
                    if key in self.maps:
                        raise self._wrong("an attribute that occurs twice")
                    self.maps[key] = array("q")
                    self._map(self.maps[key])
                case code if code == NONE:
                    self.position += 1
                    self.scalars[key] = None
                case _:
                    self.scalars[key] = self._number()
        self.position += 1

    def _map(self, spans: array[int]) -> None:
        """Batches of pairs, ``( key value ... u``, or single ones, ``key value s``.

        Both writers end a map of a whole number of full batches with an empty one.
        """
        op = self.tokens.op
        while True:
            begin = self.position
            if self._is(begin, MARK):
                begin += 1
                index = bisect_left(self.batch_ends, begin)
                whole = index < len(self.batch_ends)
                end = self.batch_ends[index] if whole else len(op)
                self.position = end + 1
                if whole and begin == end:
                    return
                spans.extend((begin, end - (end - begin) % 2))
                if not whole:
                    raise _Cut(self._offset(end))
                if (end - begin) % 2:
                    raise self._wrong("a key without a value")
            elif self._is(begin + 2, SETITEM):
                spans.extend((begin, begin + 2))
                self.position = begin + 3
            else:
                return

    def _is(self, position: int, code: int) -> bool:
        return position < len(self.tokens) and int(self.tokens.op[position]) == code

    def _peek(self) -> int:
        if self.position >= len(self.tokens):
            raise _Cut(self._offset(self.position))
        return int(self.tokens.op[self.position])

    def _expect(self, code: int, what: str) -> int:
        if self._peek() != code:
            raise self._wrong(f"{what} was expected")
        self.position += 1
        return self.position - 1

    def _string(self, what: str) -> bytes:
        begin, size = self.tokens.spans(self._value(what, self.tokens.are_strings))
        return self.tokens.data[int(begin[0]) : int(begin[0] + size[0])].tobytes()

    def _number(self) -> int:
        return int(self.tokens.numbers(self._value("a number", self.tokens.are_ints))[0])

    def _value(self, what: str, of_kind: Callable[[Ints], Flags]) -> Ints:
        self._peek()
        at = np.array([self.position])
        if not of_kind(at)[0]:
            raise self._wrong(f"{what} was expected")
        self.position += 1
        return at

    def _offset(self, token: int) -> int:
        return int(self.tokens.start[token]) if token < len(self.tokens) else len(self.tokens.data)

    def _wrong(self, text: str, damage: Damage = Damage.INVALID) -> _Wrong:
        return _Wrong(self._offset(self.position), text, damage)

    def result(self, problem: Problem | None) -> IdMap:
        id_to_label, bad_first = self._pairs(b"id_to_label")
        label_to_id, bad_second = self._pairs(b"label_to_id", inverse=True)
        id_to_seq_id, bad_third = self._pairs(b"id_to_seq_id", largest=LARGEST_SEQ_ID)
        bad = [at for at in (bad_first, bad_second, bad_third) if at is not None]
        if bad and (problem is None or min(bad) < problem.offset):
            problem = Problem(Damage.INVALID, min(bad), "a pair that is not an id and a number")
        cut_later = problem is not None and problem.damage is Damage.TRUNCATED
        followed = b"id_to_label" in self.maps and next(reversed(self.maps)) != b"id_to_label"
        return IdMap(
            shape=self.shape,
            dimensionality=self.scalars.get(b"dimensionality"),
            total_elements_added=self.scalars.get(b"total_elements_added"),
            max_seq_id=self.scalars.get(b"max_seq_id"),
            id_to_label=id_to_label,
            label_to_id=label_to_id,
            problem=problem,
            ids_whole=problem is None or (cut_later and followed),
            checkpoint=self.scalars.get(b"checkpoint_seq_id"),
            seq_ids=id_to_seq_id if len(id_to_seq_id.labels) else None,
        )

    def _pairs(
        self, name: bytes, inverse: bool = False, largest: int = LARGEST_LABEL
    ) -> tuple[Pairs, int | None]:
        """The pairs of a map, and the offset of the first that has other types."""
        spans = np.array(self.maps.get(name, ()), np.int64).reshape(-1, 2)
        sizes = spans[:, 1] - spans[:, 0]
        at = np.repeat(spans[:, 0] - np.cumsum(sizes) + sizes, sizes) + np.arange(sizes.sum())
        names, numbers = (at[1::2], at[::2]) if inverse else (at[::2], at[1::2])
        tokens = self.tokens
        typed = tokens.are_strings(names) & tokens.are_ints(numbers)
        labels = tokens.numbers(numbers)
        typed &= (labels >= 0) & (labels <= largest)
        starts, lengths = tokens.spans(names)
        # No map says an id twice, so all its ids fit into the file; gets could say one for ever.
        typed &= np.cumsum(np.where(typed, lengths, 0)) <= len(tokens.data)
        wrong = None if typed.all() else int(tokens.start[names[~typed][0]])
        ids = Strings(tokens.data, starts[typed], lengths[typed])
        return Pairs(ids, labels[typed]), wrong
