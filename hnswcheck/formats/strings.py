"""Columns of strings: a million record ids as three arrays instead of a million objects.

Ids come from the id map and from sqlite as stretches of one buffer. Columns are compared by keyed
64-bit hashes whose keys are drawn anew in every process. What hashes tell apart is different; that
two strings which differ pass for equal has a chance of 2**-64, and never where anything else in
the columns differs: there, equal hashes are followed up in the strings themselves.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from hnswcheck.formats.arrays import Bytes, Flags, Hashes, Ints

#: Bytes gathered at a time: bounds the copies that grouping by length makes.
GATHER_BYTES = 1 << 18

#: Strings longer than this are digested one by one; there can only be few of them.
LONG_STRING = 512

_SECRET = secrets.token_bytes(64)

_KEYS = [[np.uint64(secrets.randbits(64) | 1) for _ in "12"] for _ in range(LONG_STRING // 8)]

_SHIFT = np.uint64(32)


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
    _cache: dict[str, Hashes] = field(default_factory=dict, repr=False, compare=False)

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

    @property
    def sorted_hashes(self) -> Hashes:
        """uint64 (n,), ascending."""
        if "sorted" not in self._cache:
            self._cache["sorted"] = np.sort(self.hashes)
        return self._cache["sorted"]

    def repeats(self) -> int:
        """How many strings the column already had before them."""
        hashes = self.sorted_hashes
        if not (hashes[1:] == hashes[:-1]).any():
            return 0
        order = np.argsort(self.hashes)
        at = np.flatnonzero(hashes[1:] == hashes[:-1])
        return int(self.equals(order[at], self, order[at + 1]).sum())

    @property
    def hashes(self) -> Hashes:
        """uint64 (n,): a keyed hash of every string."""
        if "hashes" not in self._cache:
            self._cache["hashes"] = self._hash()
        return self._cache["hashes"]

    def _hash(self) -> Hashes:
        result = np.empty(len(self), np.uint64)
        for length, part in self._parts(np.arange(len(self))):
            if length > LONG_STRING:
                result[part] = self._digests(part)[:, 0]
            else:
                result[part] = _mix(self._words(part, length), length)
        return result

    def equals(self, index: Ints, other: Strings, at: Ints) -> Flags:
        """bool (k,): whether ``self[index[i]] == other[at[i]]``.

        Args:
            index, at: int64 (k,).
        """
        same: Flags = self.lengths[index] == other.lengths[at]
        candidates = np.flatnonzero(same)
        for length, part in self._parts(index[candidates]):
            where = candidates[part]
            left, right = index[where], at[where]
            if length > LONG_STRING:
                same[where] = (self._digests(left) == other._digests(right)).all(axis=1)
            else:
                equal = self._words(left, length) == other._words(right, length)
                same[where] = equal.all(axis=0)
        return same

    def _parts(self, index: Ints) -> Iterator[tuple[int, Ints]]:
        """(length, positions in ``index``) of strings of one length, a bounded number at a time."""
        for length, part in _by_length(self.lengths[index]):
            step = max(1, GATHER_BYTES // max(length, 1)) if length <= LONG_STRING else len(part)
            for begin in range(0, len(part), step):
                yield length, part[begin : begin + step]

    def _words(self, index: Ints, length: int) -> Hashes:
        """uint64 (words, k): strings of one length, padded with zeros."""
        padded = np.zeros((len(index), -(-length // 8) * 8), np.uint8)
        if length:
            padded[:, :length] = windows(self.buffer, length)[self.starts[index]]
        return padded.view(np.uint64).T

    def _digests(self, index: Ints) -> Hashes:
        """uint64 (k, 2): keyed digests of strings of one length; those that share bytes, once."""
        _, firsts, shared = np.unique(self.starts[index], return_index=True, return_inverse=True)
        raw = [
            hashlib.blake2b(self[i], key=_SECRET, digest_size=16).digest()
            for i in index[firsts].tolist()
        ]
        return np.frombuffer(b"".join(raw), np.uint64).reshape(-1, 2)[shared]


def windows(buffer: Bytes, width: int) -> Bytes:
    """uint8 (n - width + 1, width): every stretch of ``width`` bytes, as a view."""
    return np.ndarray((len(buffer) - width + 1, width), np.uint8, buffer, strides=(1, 1))


def _mix(words: Hashes, length: int) -> Hashes:
    """uint64 (k,): a keyed hash of each column of ``words``."""
    total = np.full(words.shape[1], length, np.uint64)
    for word, (first, second) in zip(words, _KEYS, strict=False):
        total ^= word
        for key in (first, second):
            total *= key
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


def absent(left: Strings, right: Strings) -> Flags:
    """bool (len(left),): the strings of ``left`` that ``right`` lacks."""
    if not len(left) or not len(right):
        return np.ones(len(left), bool)
    if np.array_equal(left.sorted_hashes, right.sorted_hashes):
        return np.zeros(len(left), bool)
    order, hashes = np.argsort(right.hashes), right.sorted_hashes
    place = np.minimum(np.searchsorted(hashes, left.hashes), len(right) - 1)
    lacking: Flags = hashes[place] != left.hashes
    index = np.flatnonzero(~lacking)
    same = left.equals(index, right, order[place[index]])
    lacking[index[~same]] = True
    unclear = index[~same]  # equal hashes, other bytes
    if len(unclear):
        known = set(right)
        lacking[unclear] = [left[i] not in known for i in unclear.tolist()]
    return lacking


def differences(left: Strings, right: Strings) -> tuple[Ints, Ints]:
    """Positions in ``left`` of strings that ``right`` lacks, and the other way round."""
    return np.flatnonzero(absent(left, right)), np.flatnonzero(absent(right, left))


def find(wanted: Iterable[bytes], column: Strings) -> dict[bytes, int]:
    """The position in ``column`` of each wanted string that it has; of several, the last."""
    sought = set(wanted)
    if not sought:
        return {}
    likely = np.isin(column.hashes, Strings.of(sought).hashes)
    candidates = ((column[i], i) for i in np.flatnonzero(likely).tolist())
    return {string: i for string, i in candidates if string in sought}


def positions(left: Strings, right: Strings) -> Ints:
    """int64 (len(left),): where each string of ``left`` stands in ``right``, -1 if nowhere."""
    if not len(left) or not len(right):
        return np.full(len(left), -1, np.int64)
    order, hashes = np.argsort(right.hashes), right.sorted_hashes
    place = np.minimum(np.searchsorted(hashes, left.hashes), len(right) - 1)
    at: Ints = np.where(hashes[place] == left.hashes, order[place], -1)
    index = np.flatnonzero(at >= 0)
    unclear = index[~left.equals(index, right, at[index])]  # equal hashes, other bytes
    if len(unclear):
        known = find((left[i] for i in unclear.tolist()), right)
        at[unclear] = [known.get(left[i], -1) for i in unclear.tolist()]
    return at
