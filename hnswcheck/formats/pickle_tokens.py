"""Pickle opcodes as arrays: a file is cut into tokens, and nothing is executed or built.

Only the opcodes that Chroma's two writers produce are known (see :mod:`hnswcheck.formats.id_map`);
the first other one ends the reading. Sizes and names are those of Python's ``pickletools``.
"""

from __future__ import annotations

import pickletools
from bisect import bisect_left
from dataclasses import dataclass
from enum import Enum

import numpy as np

from hnswcheck.formats.arrays import Bytes, Flags, Ints
from hnswcheck.formats.strings import windows

MARK, STOP, NONE = ord("("), ord("."), ord("N")

BININT1, BININT2, BININT, LONG1 = ord("K"), ord("M"), ord("J"), 0x8A

BINUNICODE, SHORT_BINUNICODE = ord("X"), 0x8C

EMPTY_DICT, SETITEM, SETITEMS = ord("}"), ord("s"), ord("u")

BINGET, LONG_BINGET, MEMOIZE = ord("h"), ord("j"), 0x94

PROTO, FRAME = 0x80, 0x95

EMPTY_TUPLE, NEWOBJ, STACK_GLOBAL, BUILD = ord(")"), 0x81, 0x93, ord("b")

#: Bytes of each opcode with its argument; strings and LONG1 add what their length says.
OPCODE_BYTES = {
    MARK: 1, STOP: 1, NONE: 1, BININT1: 2, BININT2: 3, BININT: 5, LONG1: 2, BINUNICODE: 5,
    SHORT_BINUNICODE: 2, EMPTY_DICT: 1, SETITEM: 1, SETITEMS: 1, BINGET: 2, LONG_BINGET: 5,
    MEMOIZE: 1, PROTO: 2, FRAME: 9, EMPTY_TUPLE: 1, NEWOBJ: 1, STACK_GLOBAL: 1, BUILD: 1,
}  # fmt: skip

#: Bytes of the length that follows the opcode, and the longest argument it may announce.
LENGTH_BYTES = {BINUNICODE: 4, SHORT_BINUNICODE: 1, LONG1: 1}

LONGEST_INT = 8

#: Tokens in a row that are worth an array of their own.
SHORTEST_RUN = 32

#: Opcodes without an argument that follow each other at most; Chroma writes up to six.
MOST_BARE = 16

_INT_BYTES = np.zeros(256, np.int64)

_INT_BYTES[[BININT1, BININT2, BININT]] = 2, 3, 5

_IS_STRING, _IS_INT = np.zeros((2, 256), bool)

_IS_STRING[[BINUNICODE, SHORT_BINUNICODE]] = True

_IS_INT[[BININT1, BININT2, BININT, LONG1]] = True

_CHUNK = 1 << 20

_BLOCK = 1 << 13


class Damage(Enum):
    """Why a file does not end as an id map."""

    TRUNCATED = "truncated"
    UNSAFE = "unsafe"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Problem:
    """Where reading had to stop: ``offset`` in bytes, ``text`` in words."""

    damage: Damage
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """The opcodes of a file without framing and memo; a get stands for the string it gets.

    Attributes:
        data: uint8, the file.
        start: int64 (n,), where each token (or the string it stands for) begins.
        op: uint8 (n,), its opcode.
    """

    data: Bytes
    start: Ints
    op: Bytes

    def __len__(self) -> int:
        return len(self.op)

    def are_strings(self, index: Ints) -> Flags:
        """bool: whether the tokens at ``index`` are strings."""
        return _IS_STRING[self.op[index]]

    def are_ints(self, index: Ints) -> Flags:
        """bool: whether the tokens at ``index`` are integers."""
        return _IS_INT[self.op[index]]

    def spans(self, index: Ints) -> tuple[Ints, Ints]:
        """(start, length) in bytes of the strings at ``index``."""
        begin, op = self.start[index], self.op[index]
        head, size = np.zeros(len(index), np.int64), np.zeros(len(index), np.int64)
        for code in filter(LENGTH_BYTES.get, _occurring(op)):
            at, width = np.flatnonzero(op == code), LENGTH_BYTES[code]
            head[at] = 1 + width
            size[at] = little_endian(self.data, begin[at] + 1, width)
        return begin + head, size

    def numbers(self, index: Ints) -> Ints:
        """int64: the values of the integers at ``index``, 0 for other tokens."""
        begin, op = self.start[index], self.op[index]
        value = np.zeros(len(index), np.int64)
        for code in _occurring(op):
            if _IS_INT[code]:
                at = np.flatnonzero(op == code)
                value[at] = self._numbers(begin[at], code)
        return value

    def _numbers(self, begin: Ints, code: int) -> Ints:
        """int64: the integers at ``begin``, all of opcode ``code``."""
        if code == LONG1:
            size = little_endian(self.data, begin + 1, 1)
            unused_bits = 8 * (8 - size)
            raw = little_endian(self.data, begin + 2, 8)
            return np.where(size > 0, (raw << unused_bits % 64) >> unused_bits % 64, 0)
        value = little_endian(self.data, begin + 1, OPCODE_BYTES[code] - 1)
        return value.astype(np.int32).astype(np.int64) if code == BININT else value


def _occurring(op: Bytes) -> list[int]:
    return np.flatnonzero(np.bincount(op)).tolist()


def tokenise(raw: bytes) -> tuple[Tokens, Problem | None]:
    """The tokens of a file up to STOP, or up to what no Chroma writes.

    Time and memory are a small multiple of ``len(raw)``, whatever it holds.
    """
    data = np.frombuffer(raw, np.uint8)
    start, problem = _Cutter(raw, data).cut()
    op = data[start]
    keep = (op != FRAME) & (op != PROTO)
    start, op = start[keep], op[keep]
    bad = _resolve_memo(data, start, op)
    if bad is not None:
        text = "a reference to a value that is not a string"
        problem = Problem(Damage.UNSAFE, int(start[bad]), text)
        start, op = start[:bad], op[:bad]
    keep = op != MEMOIZE
    return Tokens(data, start[keep], op[keep]), problem


def little_endian(data: Bytes, at: Ints, width: int) -> Ints:
    """int64: the numbers of ``width`` (1, 2, 4, 8) bytes at ``at``; zeros follow the end."""
    past = at > len(data) - width
    if not past.any():
        found = windows(data, width)[at] if len(at) else np.empty((0, width), np.uint8)
        return found.view(f"<u{width}").ravel().astype(np.int64)
    total = np.empty(len(at), np.int64)
    total[~past] = little_endian(data, at[~past], width)
    first = max(0, len(data) - width)
    tail = np.append(data[first:], np.zeros(2 * width, np.uint8))
    total[past] = little_endian(tail, np.minimum(at[past] - first, width), width)
    return total


def _resolve_memo(data: Bytes, start: Ints, op: Bytes) -> int | None:
    """Make gets the strings they get; the index of the first that gets anything else."""
    stored = np.flatnonzero(op == MEMOIZE) - 1
    gets = np.flatnonzero((op == BINGET) | (op == LONG_BINGET))
    for first in range(0, len(gets), _BLOCK):
        at = gets[first : first + _BLOCK]
        long = op[at] == LONG_BINGET
        slot = little_endian(data, start[at] + 1, 1)
        slot[long] = little_endian(data, start[at[long]] + 1, 4)
        source = np.zeros(len(at), np.int64)
        known = slot < len(stored)
        source[known] = stored[slot[known]]
        known &= (source >= 0) & (source < at)
        known &= _IS_STRING[op[source]]
        good = len(at) if known.all() else int(np.argmin(known))
        at, source = at[:good], source[:good]
        start[at], op[at] = start[source], op[source]
        if good < len(known):
            return int(gets[first + good])
    return None


class _Cutter:
    """Finds where opcodes start.

    Opcode by opcode where the file is irregular; where the same kind of pair repeats, which is
    nearly everywhere in a map of a million ids, a whole run at a time.
    """

    def __init__(self, raw: bytes, data: Bytes) -> None:
        self.raw = raw
        self.data = data
        self.pieces: list[Ints] = []
        self.single: list[int] = []
        self.runs: dict[int, _StringRuns] = {}

    def cut(self) -> tuple[Ints, Problem | None]:
        position, end, raw = 0, len(self.raw), self.raw
        if raw and raw[0] != PROTO:
            return np.empty(0, np.int64), Problem(Damage.INVALID, 0, "the file is not a pickle")
        problem: Problem | None = Problem(Damage.TRUNCATED, end, "the file ends inside the id map")
        bare = 0
        while position < end:
            op = raw[position]
            bare = bare + 1 if OPCODE_BYTES.get(op) == 1 else 0
            if bare > MOST_BARE:
                text = f"{bare} opcodes without a value between them"
                problem = Problem(Damage.INVALID, position, text)
                break
            if op == STOP:
                self._emit(position)
                left = end - position - 1
                problem = None
                if left:
                    text = f"{left} bytes follow the end of the id map"
                    problem = Problem(Damage.INVALID, position + 1, text)
                break
            size = self._size(op, position)
            if size == 0:
                problem = _foreign(op, position)
                break
            if position + size > end:
                break
            position = self._run(op, position) or self._emit(position) + size
        self._flush()
        return np.concatenate(self.pieces) if self.pieces else np.empty(0, np.int64), problem

    def _emit(self, position: int) -> int:
        self.single.append(position)
        if len(self.single) >= _BLOCK:
            self._flush()
        return position

    def _flush(self) -> None:
        if self.single:
            self.pieces.append(np.array(self.single, np.int64))
            self.single.clear()

    def _size(self, op: int, position: int) -> int:
        """Bytes of the opcode at ``position``; 0 if it is none of ours."""
        size = OPCODE_BYTES.get(op, 0)
        if width := LENGTH_BYTES.get(op):
            announced = int.from_bytes(self.raw[position + 1 : position + 1 + width], "little")
            if op == LONG1 and announced > LONGEST_INT:
                return 0
            size += announced
        return size

    def _run(self, op: int, position: int) -> int | None:
        """Take a run of like pairs that starts here; where it ends, or None if there is none."""
        if op in (BINUNICODE, SHORT_BINUNICODE):
            if op not in self.runs:
                self.runs[op] = _StringRuns(self.data, op)
            starts, end = self.runs[op].at(position)
        elif op in (BININT, LONG_BINGET):
            starts, end = _stride_run(self.data, position)
        else:
            return None
        if len(starts) < SHORTEST_RUN:
            return None
        self._flush()
        self.pieces.append(starts)
        return end


def _foreign(op: int, position: int) -> Problem:
    """An opcode that is none of ours: of pickle's own, or of nobody's."""
    if op in {ord(opcode.code) for opcode in pickletools.opcodes}:
        text = f"opcode 0x{op:02x}, which Chroma never writes"
        return Problem(Damage.UNSAFE, position, text)
    return Problem(Damage.INVALID, position, f"0x{op:02x}, which is not an opcode")


_NO_RUN = np.empty(0, np.int64), 0


class _StringRuns:
    """Runs of a string, possibly MEMOIZE, and an integer, again and again."""

    def __init__(self, data: Bytes, op: int) -> None:
        pieces = [_pairs(data, op, i) for i in range(0, len(data), _CHUNK)]
        columns = [np.concatenate(column) for column in zip(*pieces, strict=True)]
        self.start, self.after, self.number, self.following = columns
        self.memoised = self.number > self.after
        linked = self.following[:-1] == self.start[1:]
        linked &= self.memoised[:-1] == self.memoised[1:]
        #: Positions in ``start`` after which the chain of pairs is interrupted.
        self.breaks: list[int] = [*np.flatnonzero(~linked).tolist(), len(self.start) - 1]

    def at(self, position: int) -> tuple[Ints, int]:
        """Opcode starts of the run that begins at ``position``, and where the run ends."""
        first = int(np.searchsorted(self.start, position))
        if first == len(self.start) or self.start[first] != position:
            return _NO_RUN
        last = self.breaks[bisect_left(self.breaks, first)]
        part = slice(first, last + 1)
        columns = [self.start[part], self.after[part], self.number[part]]
        if not self.memoised[first]:
            del columns[1]
        return np.stack(columns, axis=1).ravel(), int(self.following[last])


def _pairs(data: Bytes, op: int, first: int) -> tuple[Ints, Ints, Ints, Ints]:
    """Strings that an integer may follow, among the :data:`_CHUNK` bytes from ``first`` on.

    Where each begins and ends, where the integer begins, and where that ends; each int64 (n,).
    """
    at = np.flatnonzero(data[first : first + _CHUNK] == op) + first
    if op == BINUNICODE:  # ids of 64 KiB and more can go the slow way
        at = at[at + 4 < len(data)]
        at = at[(data[at + 3] == 0) & (data[at + 4] == 0)]
    width = LENGTH_BYTES[op]
    last = len(data) - 1
    after = at + 1 + width + little_endian(data, at + 1, min(width, 2))
    number = after + (data[np.minimum(after, last)] == MEMOIZE)
    size = _INT_BYTES[data[np.minimum(number, last)]]
    genuine = (size > 0) & (number + size <= len(data))
    return at[genuine], after[genuine], number[genuine], (number + size)[genuine]


def _stride_run(data: Bytes, position: int) -> tuple[Ints, int]:
    """The run of BININT and LONG_BINGET in turn that begins at ``position``."""
    rows = (len(data) - position) // 10
    table = data[position : position + 10 * rows].reshape(rows, 10)
    if not rows or {BININT, LONG_BINGET} != {int(table[0, 0]), int(table[0, 5])}:
        return _NO_RUN
    taken, size = 0, SHORTEST_RUN
    while taken < rows:
        block = table[taken : taken + size]
        size = _BLOCK
        same = (block[:, 0] == table[0, 0]) & (block[:, 5] == table[0, 5])
        run = int(np.argmin(same)) if not same.all() else len(block)
        taken += run
        if run < len(block):
            break
    end = position + 10 * taken
    return np.arange(position, end, 5), end
