"""Columns of strings: a million record ids as three arrays instead of a million objects.

Ids come from the id map and from sqlite as stretches of one buffer. Two strings count as equal if
two independent 64-bit hashes say so, whose keys are drawn anew in every process: no file can be
made to collide, and the chance of one wrong match in a billion strings is below 1e-20.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
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
_SECRET = secrets.token_bytes(64)
_KEYS = np.array(
    [[secrets.randbits(64) | 1 for _ in range(2)] for _ in range(LONG_STRING // 8)], np.uint64
)
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
    _cache: dict[str, Ordered] = field(default_factory=dict, repr=False, compare=False)

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

    @classmethod
    def concatenated(cls, parts: Sequence[Strings]) -> Strings:
        """One column of several, one after the other."""
        sizes = np.array([len(part.buffer) for part in parts], np.int64)
        shifts = np.cumsum(sizes) - sizes
        return cls(
            np.concatenate([part.buffer for part in parts]),
            np.concatenate([p.starts + shift for p, shift in zip(parts, shifts, strict=True)]),
            np.concatenate([part.lengths for part in parts]),
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> bytes:
        start = int(self.starts[index])
        return self.buffer[start : start + int(self.lengths[index])].tobytes()

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))

    def take(self, index: Ints) -> Strings:
        """The strings at ``index`` (int64, shape (k,)), sharing the buffer."""
        return Strings(self.buffer, self.starts[index], self.lengths[index])

    def ordered(self) -> Ordered:
        """The hashes of all strings, and the order that sorts them."""
        if "ordered" not in self._cache:
            hashes = self._hash()
            order = np.argsort(hashes[0])
            self._cache["ordered"] = Ordered(hashes, order, hashes[0][order])
        return self._cache["ordered"]

    def _hash(self) -> Hashes:
        """uint64 (2, n): both hashes of every string."""
        result = np.empty((2, len(self)), np.uint64)
        for length, index in _by_length(self.lengths):
            if length > LONG_STRING:
                for i in index.tolist():
                    digest = hashlib.blake2b(self[i], key=_SECRET, digest_size=16).digest()
                    result[:, i] = np.frombuffer(digest, np.uint64)
                continue
            step = max(1, GATHER_BYTES // max(length, 1))
            for begin in range(0, len(index), step):
                part = index[begin : begin + step]
                result[:, part] = _mix(_words(self, part, length), length)
        return result


@dataclass(frozen=True, slots=True)
class Ordered:
    """Hashes of a column.

    Attributes:
        hashes: uint64 (2, n), in the order of the column.
        order: int64 (n,): positions that sort the first hash.
        first: uint64 (n,): the first hash, sorted.
    """

    hashes: Hashes
    order: Ints
    first: Hashes

    @property
    def repeats(self) -> bool:
        """Whether a first hash comes twice."""
        return bool((self.first[1:] == self.first[:-1]).any())


def _words(strings: Strings, index: Ints, length: int) -> Hashes:
    """uint64 (words, k): the strings at ``index``, all of ``length`` bytes, padded with zeros."""
    padded = np.zeros((len(index), -(-length // 8) * 8), np.uint8)
    if length:
        window = sliding_window_view(strings.buffer, length)
        padded[:, :length] = window[strings.starts[index]]
    return padded.view(np.uint64).T


def _mix(words: Hashes, length: int) -> Hashes:
    """uint64 (2, k): two keyed hashes of each column of ``words``."""
    total = np.full((2, words.shape[1]), length, np.uint64)
    for word, keys in zip(words, _KEYS, strict=False):
        total = (total ^ word) * keys[:, None]
        total ^= total >> _SHIFT
    return total


def _by_length(lengths: Ints) -> Iterator[tuple[int, Ints]]:
    """(length, positions having it) for every length that occurs."""
    if not len(lengths):
        return
    if (lengths == lengths[0]).all():
        yield int(lengths[0]), np.arange(len(lengths))
        return
    narrow = lengths.astype(np.int16) if lengths.max() < 1 << 15 else lengths  # radix-sortable
    order = np.argsort(narrow, kind="stable")
    cuts = np.flatnonzero(np.diff(lengths[order])) + 1
    for part in np.split(order, cuts):
        yield int(lengths[part[0]]), part


@dataclass(frozen=True, slots=True)
class Matching:
    """Two columns laid side by side as sets.

    Attributes:
        only_left, only_right: int64 positions of strings that the other column lacks.
        left, right: int64 positions of equal strings, pairwise.
    """

    only_left: Ints
    only_right: Ints
    left: Ints
    right: Ints


def match(left: Strings, right: Strings) -> Matching:
    """Compare two columns as sets; of a string that a column repeats, the last stands for all."""
    ours, theirs = left.ordered(), right.ordered()
    if ours.repeats or theirs.repeats:
        return _match_one_by_one(left, right)
    if np.array_equal(ours.first, theirs.first):
        found, place = np.ones(len(left), bool), np.arange(len(right))
    else:
        place = np.searchsorted(theirs.first, ours.first)
        place = np.minimum(place, max(len(right) - 1, 0))
        found = theirs.first[place] == ours.first if len(right) else np.zeros(len(left), bool)
    paired_left, paired_right = ours.order[found], theirs.order[place[found]]
    if not np.array_equal(ours.hashes[1][paired_left], theirs.hashes[1][paired_right]):
        return _match_one_by_one(left, right)
    unmatched = np.ones(len(right), bool)
    unmatched[paired_right] = False
    only_left = np.sort(ours.order[~found])
    return Matching(only_left, np.flatnonzero(unmatched), paired_left, paired_right)


def _match_one_by_one(left: Strings, right: Strings) -> Matching:
    """The same answer by bytes, for columns that repeat themselves."""
    ours = {value: i for i, value in enumerate(left)}
    theirs = {value: i for i, value in enumerate(right)}
    pairs = [(i, theirs[value]) for value, i in ours.items() if value in theirs]
    return Matching(
        _ints(i for value, i in ours.items() if value not in theirs),
        _ints(i for value, i in theirs.items() if value not in ours),
        _ints(i for i, _ in pairs),
        _ints(j for _, j in pairs),
    )


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, dtype=np.int64)
