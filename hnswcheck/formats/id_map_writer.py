"""index_metadata.pickle as Chroma's two writers make it; see :mod:`hnswcheck.formats.id_map`.

Written in pieces: a million ids as Python objects in three dicts would take more memory than a
small index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

from hnswcheck.formats.arrays import Ints, Labels
from hnswcheck.formats.id_map import PERSISTENT_DATA
from hnswcheck.formats.pickle_tokens import (
    BINGET,
    BININT,
    BININT1,
    BININT2,
    BINUNICODE,
    BUILD,
    EMPTY_DICT,
    EMPTY_TUPLE,
    FRAME,
    LONG1,
    LONG_BINGET,
    MARK,
    MEMOIZE,
    NEWOBJ,
    NONE,
    PROTO,
    SETITEM,
    SETITEMS,
    SHORT_BINUNICODE,
    STACK_GLOBAL,
    STOP,
)
from hnswcheck.formats.strings import Strings

RUST_PROTOCOL, PYTHON_PROTOCOL = 3, 5
#: Pairs in one SETITEMS; what has a whole number of full batches gets an empty one at the end.
BATCH = 1000
#: CPython begins a new frame after so many bytes.
FRAME_BYTES = 1 << 16

#: The pickled keys or values of the records from ``start`` to ``stop``.
Column = Callable[[int, int], Iterable[bytes]]

_SET = bytes([SETITEMS])


def write_dict(file: BinaryIO, ids: Strings, labels: Labels, last_label: int) -> None:
    """As 1.x does: a plain dict that knows neither dimension nor watermark nor seq_ids.

    Args:
        labels: uint64 (n,).
        last_label: the one that was handed out last.

    Raises:
        OSError: the file cannot be written.
    """

    def texts(start: int, stop: int) -> Iterable[bytes]:
        return (_long_text(ids[i]) for i in range(start, stop))

    def numbers(start: int, stop: int) -> Iterable[bytes]:
        return map(_four_bytes, labels[start:stop].tolist())

    write = file.write
    write(bytes([PROTO, RUST_PROTOCOL, EMPTY_DICT, MARK]))
    write(_long_text(b"dimensionality") + bytes([NONE]))
    write(_long_text(b"total_elements_added") + _four_bytes(last_label))
    write(_long_text(b"max_seq_id") + bytes([NONE]))
    for name, keys, values in ((b"id_to_label", texts, numbers), (b"label_to_id", numbers, texts)):
        write(_long_text(name) + bytes([EMPTY_DICT]))
        for batch in _batches(len(ids), keys, values):
            write(bytes([MARK]) + batch + _SET)
    write(_long_text(b"id_to_seq_id") + bytes([EMPTY_DICT]) + _SET + bytes([STOP]))


def write_instance(
    file: BinaryIO,
    ids: Strings,
    labels: Labels,
    last_label: int,
    dimension: int,
    seq_ids: Ints,
    max_seq_id: int | None,
) -> None:
    """As 0.4 to 0.6 do: an instance of ``PersistentData``.

    Args:
        labels: uint64 (n,).
        last_label: the one that was handed out last.
        seq_ids: int64 (n,), of each record's last write.
        max_seq_id: the watermark that 0.4 keeps here; None for 0.5 and 0.6, which have none.

    Raises:
        OSError: the file cannot be written.
    """
    numbers = {b"dimensionality": dimension, b"total_elements_added": last_label}
    if max_seq_id is not None:
        numbers[b"max_seq_id"] = max_seq_id
    head, memorised = _head(numbers)
    first_id = memorised + 2  # after the name of the first map, and the map

    def texts(start: int, stop: int) -> Iterable[bytes]:
        return (_put(_short_text(ids[i])) for i in range(start, stop))

    def texts_again(start: int, stop: int) -> Iterable[bytes]:
        return map(_get, range(first_id + start, first_id + stop))

    file.write(bytes([PROTO, PYTHON_PROTOCOL]))
    frames = _Frames(file)
    frames.write(head)
    for name, keys, values in (
        (b"id_to_label", texts, _numbers(labels)),
        (b"label_to_id", _numbers(labels), texts_again),
        (b"id_to_seq_id", texts_again, _numbers(seq_ids)),
    ):
        frames.write(_put(_short_text(name)) + _put(bytes([EMPTY_DICT])))
        for batch in _batches(len(ids), keys, values):
            alone = len(ids) == 1
            frames.write(batch + bytes([SETITEM]) if alone else bytes([MARK]) + batch + _SET)
    frames.write(_SET + bytes([BUILD, STOP]))
    frames.end()


def _head(numbers: Mapping[bytes, int]) -> tuple[bytes, int]:
    """The object and its attributes that are numbers; and how many things the memo then holds."""
    made = [
        *(_put(_short_text(name)) for name in PERSISTENT_DATA),
        _put(bytes([STACK_GLOBAL])),
        _put(bytes([EMPTY_TUPLE, NEWOBJ])),
        _put(bytes([EMPTY_DICT])),
    ]
    attributes = [_put(_short_text(name)) + _number(value) for name, value in numbers.items()]
    head = b"".join(made) + bytes([MARK]) + b"".join(attributes)
    return head, len(made) + len(attributes)


def _numbers(values: Ints | Labels) -> Column:
    return lambda start, stop: map(_number, values[start:stop].tolist())


def _batches(count: int, keys: Column, values: Column) -> Iterable[bytes]:
    for start in range(0, count + 1, BATCH):
        stop = min(start + BATCH, count)
        pairs = zip(keys(start, stop), values(start, stop), strict=True)
        yield b"".join(part for pair in pairs for part in pair)


class _Frames:
    """Gathers bytes into frames."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.gathered = bytearray()

    def write(self, data: bytes) -> None:
        self.gathered += data
        if len(self.gathered) >= FRAME_BYTES:
            self.end()

    def end(self) -> None:
        if self.gathered:
            self.file.write(bytes([FRAME]) + len(self.gathered).to_bytes(8, "little"))
            self.file.write(self.gathered)
            self.gathered.clear()


def _long_text(value: bytes) -> bytes:
    return bytes([BINUNICODE]) + len(value).to_bytes(4, "little") + value


def _short_text(value: bytes) -> bytes:
    if len(value) > 0xFF:
        return _long_text(value)
    return bytes([SHORT_BINUNICODE, len(value)]) + value


def _put(pickled: bytes) -> bytes:
    return pickled + bytes([MEMOIZE])


def _get(index: int) -> bytes:
    if index <= 0xFF:
        return bytes([BINGET, index])
    return bytes([LONG_BINGET]) + index.to_bytes(4, "little")


def _four_bytes(value: int) -> bytes:
    return bytes([BININT]) + value.to_bytes(4, "little", signed=True)


def _number(value: int) -> bytes:
    """The shortest opcode that holds a number from 0."""
    if value <= 0xFF:
        return bytes([BININT1, value])
    if value <= 0xFFFF:
        return bytes([BININT2]) + value.to_bytes(2, "little")
    if value < 1 << 31:
        return _four_bytes(value)
    size = value.bit_length() // 8 + 1  # one bit for the sign
    return bytes([LONG1, size]) + value.to_bytes(size, "little", signed=True)
