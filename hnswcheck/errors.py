"""What can go wrong before there is anything to report; each error owns its exit code."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Self, TypeVar

from hnswcheck.kinds import FindingId

E = TypeVar("E", bound="HnswcheckError")


class HnswcheckError(Exception):
    """Base of every error this package raises on purpose; the message is one line.

    A subclass may take whatever it likes: neither :meth:`saying` nor pickle calls its ``__init__``.
    """

    exit_code = 3
    #: The finding that says the same in a report; None where the error is not about a store.
    finding: ClassVar[FindingId | None] = "file-unreadable"

    def saying(self, message: str) -> Self:
        """The same error with another message: class, attributes and exit code stay.

        To be raised ``from`` this one.
        """
        other = _made(type(self), message)
        other.__dict__.update(self.__dict__)
        return other

    def within(self, path: str | os.PathLike[str]) -> Self:
        """The same error with the path in front of its message; itself if it names the path."""
        return self if str(path) in str(self) else self.saying(f"{path}: {self}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, (type(self), *self.args), self.__dict__


def _made(kind: type[E], *message: object) -> E:
    return kind.__new__(kind, *message)


class UsageError(HnswcheckError):
    """The question was wrong: an unknown level, collection, finding or severity."""

    exit_code = 2
    finding: ClassVar[FindingId | None] = None


class StoreNotFound(UsageError):
    """There is nothing at the path."""

    finding = "store-not-found"


class NotAChromaStore(UsageError):
    """What is at the path is no persist directory of Chroma."""

    finding = "not-a-chroma-store"


class SchemaUnknown(HnswcheckError):
    """chroma.sqlite3 has a schema that this version has not learned to read."""

    finding = "schema-unknown"


class SqliteBusy(HnswcheckError):
    """Another process kept chroma.sqlite3 locked for longer than we waited."""

    finding = "sqlite-busy"


class SqliteDamaged(HnswcheckError):
    """sqlite itself, or a value in a table, cannot be what Chroma wrote."""

    exit_code = 1
    finding = "sqlite-damaged"


class StoreUnreadable(HnswcheckError):
    """The operating system did not let us read what an audit needs."""

    finding: ClassVar[FindingId] = "file-unreadable"


class StoreInUse(HnswcheckError):
    """Somebody has the store open that was to be changed."""

    finding = None


class ActionFailed(HnswcheckError):
    """The system refused what a change of the store needs; the message says how it is left."""

    finding = None


class RepairRefused(HnswcheckError):
    """A repair would need what is not there; the message says what."""

    exit_code = 1
    finding = None


class RepairFailed(HnswcheckError):
    """What a repair made was not right, and was taken back."""

    finding = None


class ExtraMissing(HnswcheckError):
    """Something is needed that an extra installs, or the user; the message says what."""

    finding = None


class EngineMissing(ExtraMissing):
    """hnswlib is needed to build an index, or chromadb to try it, and cannot be used."""


class VectorsNotFinite(HnswcheckError, ValueError):
    """Vectors hold inf or nan, which no index can be built from.

    Attributes:
        positions: which, ascending, counted from 0.
    """

    exit_code = 1
    finding = None

    def __init__(self, positions: Sequence[int]) -> None:
        self.positions = tuple(positions)
        few = ", ".join(map(str, self.positions[:5]))
        more = ", ..." if len(self.positions) > 5 else ""
        super().__init__(f"{len(self.positions)} vectors are not finite, at {few}{more}")


class RestoreRefused(HnswcheckError):
    """Putting a folder back would lose what was written since, or is not possible."""

    exit_code = 1
    finding = None


class OutputFailed(HnswcheckError):
    """The report could not be delivered."""

    finding = None


class StoreChanged(HnswcheckError):
    """The store changed while it was read."""

    finding = "store-changed"


class RecordsMoved(StoreChanged):
    """Table ``embeddings`` held other records from one statement to the next."""


class FormatError(HnswcheckError):
    """A file does not follow its format. Raised by readers, turned into findings by checks."""

    exit_code = 1


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors about a store name it."""
    try:
        yield
    except HnswcheckError as error:
        named = error.within(path) if error.finding else error
        if named is error:
            raise
        raise named from error
