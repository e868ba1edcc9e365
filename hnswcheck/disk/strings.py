"""Columns of strings: a million record ids as three arrays instead of a million objects.

Ids come from the id map and from sqlite as stretches of one buffer. They are compared by a keyed
64-bit hash first and byte for byte afterwards, so an answer never rests on a hash.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]

#: Rows gathered at a time: bounds the copies that grouping by length makes.
GATHER_BYTES = 4 << 20
#: Strings longer than this are hashed one by one; there can only be few of them.
LONG_STRING = 512
_KEYS = np.array([secrets.randbits(64) | 1 for _ in range(LONG_STRING // 8 + 1)], dtype=np.uint64)
_SHIFT = np.uint64(29)


@dataclass(frozen=True, slots=True)
class Strings:
    """Byte strings ``buffer[starts[i] : starts[i] + lengths[i]]``.

    Attributes:
        buffer: uint8, shared between columns of one file.
        starts: int64, shape (n,).
        lengths: int64, shape (n,).
    """

    buffer: Bytes
    starts: Ints
    lengths: Ints
    _hashes: list[Hashes] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(cls, values: Iterable[bytes]) -> Strings:
        """A column holding ``values``, in their order."""
        items = list(values)
        lengths = np.fromiter(map(len, items), dtype=np.int64, count=len(items))
        return cls.packed(b"".join(items), lengths)

    @classmethod
    def packed(cls, data: bytes, lengths: Ints) -> Strings:
        """Strings that lie one after the other in ``data``."""
        return cls(np.frombuffer(data, np.uint8), np.cumsum(lengths) - lengths, lengths)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        start = int(self.starts[index])
        return self.buffer[start : start + int(self.lengths[index])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))

    def take(self, index: Ints) -> Strings:
        """The strings at ``index`` (int64, any shape (k,)), sharing the buffer."""
        return Strings(self.buffer, self.starts[index], self.lengths[index])

    def hashes(self) -> Hashes:
        """uint64 (n,): keyed per process, so that no file can be made to collide."""
        if not self._hashes:
            self._hashes.append(self._compute_hashes())
        return self._hashes[0]

    def _compute_hashes(self) -> Hashes:
        result = np.empty(len(self), np.uint64)
        for length, index in _by_length(self.lengths):
            if length > LONG_STRING:
                for i in index.tolist():
                    digest = hashlib.blake2b(self[i], key=_KEYS.tobytes()[:64], digest_size=8)
                    result[i] = int.from_bytes(digest.digest(), "little")
                continue
            words = -(-length // 8)
            for part in _slices(index, max(length, 1)):
                padded = np.zeros((len(part), words * 8), np.uint8)
                padded[:, :length] = _rows(self, part, length)
                total = np.full(len(part), length, np.uint64)
                for word, key in zip(padded.view(np.uint64).T, _KEYS, strict=False):
                    total = (total ^ word) * key
                    total ^= total >> _SHIFT
                result[part] = total
        return result

    def equal(self, other: Strings) -> Flags:
        """bool (n,): whether string i of both columns (of one length n) is the same."""
        same: Flags = self.lengths == other.lengths
        for length, index in _by_length(np.where(same, self.lengths, -1)):
            if length <= 0:
                continue
            for part in _slices(index, length):
                mine, others = _rows(self, part, length), _rows(other, part, length)
                same[part] = (mine == others).all(axis=1)
        return same


def _rows(strings: Strings, index: Ints, length: int) -> Bytes:
    """uint8 (k, length): the strings at ``index``, all of that length."""
    if length == 0:
        return np.empty((len(index), 0), np.uint8)
    window: Bytes = sliding_window_view(strings.buffer, length)[strings.starts[index]]
    return window


def _slices(index: Ints, length: int) -> Iterator[Ints]:
    step = max(1, GATHER_BYTES // length)
    for begin in range(0, len(index), step):
        yield index[begin : begin + step]


def _by_length(lengths: Ints) -> Iterator[tuple[int, Ints]]:
    """(length, positions having it) for every length that occurs."""
    if not len(lengths):
        return
    if (lengths == lengths[0]).all():
        yield int(lengths[0]), np.arange(len(lengths))
        return
    narrow = lengths.astype(np.int16) if lengths.max() < 1 << 15 else lengths  # radix-sortable
    order = np.argsort(narrow, kind="stable")
    ordered = lengths[order]
    cuts = np.flatnonzero(np.diff(ordered)) + 1
    for part in np.split(order, cuts):
        yield int(lengths[part[0]]), part


@dataclass(frozen=True, slots=True)
class Matching:
    """Two columns laid side by side as sets.

    Attributes:
        only_left, only_right: int64 positions of strings that the other column lacks.
        left, right: int64 positions of equal strings, pairwise.
        repeated_left: int64 positions of strings that stood earlier in the left column.
    """

    only_left: Ints
    only_right: Ints
    left: Ints
    right: Ints
    repeated_left: Ints


def match(left: Strings, right: Strings) -> Matching:
    """Compare two columns as sets, exactly.

    Time and memory grow with the number and the bytes of the strings.
    """
    left_hashes, right_hashes = left.hashes(), right.hashes()
    left_order, right_order = np.argsort(left_hashes), np.argsort(right_hashes)
    left_sorted, right_sorted = left_hashes[left_order], right_hashes[right_order]
    if _has_repeats(left_sorted) or _has_repeats(right_sorted):
        return _match_one_by_one(left, right)
    place = np.searchsorted(right_sorted, left_sorted)
    place[place == len(right_sorted)] = 0
    found = right_sorted[place] == left_sorted if len(right_sorted) else np.zeros(len(left), bool)
    paired_left, paired_right = left_order[found], right_order[place[found]]
    if not left.take(paired_left).equal(right.take(paired_right)).all():
        return _match_one_by_one(left, right)
    unmatched = np.ones(len(right), bool)
    unmatched[paired_right] = False
    return Matching(
        np.sort(left_order[~found]),
        np.flatnonzero(unmatched),
        paired_left,
        paired_right,
        np.empty(0, np.int64),
    )


def _has_repeats(ordered: Hashes) -> bool:
    return bool((ordered[1:] == ordered[:-1]).any())


def _match_one_by_one(left: Strings, right: Strings) -> Matching:
    """The same answer through a dict, for columns that repeat themselves."""
    first_left: dict[bytes, int] = {}
    repeated = [i for i, value in enumerate(left) if first_left.setdefault(value, i) != i]
    first_right: dict[bytes, int] = {}
    for i, value in enumerate(right):
        first_right.setdefault(value, i)
    pairs = [(i, first_right[v]) for v, i in first_left.items() if v in first_right]
    return Matching(
        _ints(i for v, i in first_left.items() if v not in first_right),
        _ints(i for v, i in first_right.items() if v not in first_left),
        _ints(i for i, _ in pairs),
        _ints(j for _, j in pairs),
        _ints(repeated),
    )


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)
