"""The procedure that every change of a store follows, so that each keeps the same promises.

1. :func:`settle` finishes or takes back what a stopped action left.
2. The action makes its plan without a lock, from a :class:`StoreState`: the files must be the same
   after the planning as before it.
3. :func:`confirmed` lets sqlite take in its write-ahead log, which would be in the way of the
   lock. If there was one, the plan is made again, and must come out the same.
4. :meth:`StoreState.hold` locks the store, and refuses if a file is no longer what it was.
5. :func:`hnswcheck.changes.journal.perform` carries the plan out whole, or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from hnswcheck.changes.journal import DRAFT, is_unfinished, recover
from hnswcheck.changes.lock import Held, hold, reading
from hnswcheck.changes.processes import users_of
from hnswcheck.errors import StoreChanged, UsageError
from hnswcheck.store.database import DATABASE
from hnswcheck.store.files import States, list_directory, states_if_quiet
from hnswcheck.store.names import REBUILT, UUID
from hnswcheck.store.view import check_path


@dataclass(frozen=True, slots=True)
class StoreState:
    """What the files of a store were when somebody looked.

    Attributes:
        root: the persist directory.
        folders: the folders whose files count, besides chroma.sqlite3.
        files: what their files were; None if they changed while somebody looked.
    """

    root: Path
    folders: tuple[Path, ...]
    files: States | None

    @classmethod
    def now(cls, root: Path, *others: Path) -> StoreState:
        """The state of the database, of every segment folder, and of other folders."""
        segments = (root / s.name for s in list_directory(root) if UUID.fullmatch(s.name))
        folders = (*segments, *others)
        return cls(root, folders, states_if_quiet(root, folders))

    @classmethod
    def of_database(cls, root: Path) -> StoreState:
        """The state of the database alone."""
        return cls(root, (), states_if_quiet(root, ()))

    def if_unchanged(self) -> StoreState:
        """This state if the files still are in it, else one that nothing can be planned from."""
        same = states_if_quiet(self.root, self.folders) == self.files
        return self if same else replace(self, files=None)

    @contextmanager
    def hold(self, wait: float) -> Iterator[Held]:
        """Keep the store for ourselves while it is in this state.

        Args:
            wait: seconds to wait for other processes to close the store.

        Raises:
            StoreChanged: the files are no longer in this state, or changed while somebody looked.
            HnswcheckError: as :func:`hnswcheck.changes.lock.hold`.
        """
        with hold(self.root, wait) as held:
            if self.files is None or states_if_quiet(self.root, self.folders) != self.files:
                raise _changed(self.root)
            yield held

    @contextmanager
    def while_read(self) -> Iterator[None]:
        """What cannot be read any more, in files that are no longer in this state, has changed.

        Raises:
            StoreChanged: in place of any other error of a store that was written meanwhile.
        """
        try:
            yield
        except Exception as error:
            if self.if_unchanged().files is None:
                raise _changed(self.root) from error
            raise

    def take_in_wal(self, wait: float) -> bool:
        """Let sqlite take its own log into the database; whether there was one.

        The state is another one then, and whatever was read has to be read again.

        Raises:
            HnswcheckError: as :func:`hnswcheck.changes.lock.hold`.
        """
        if not any(file and file.name.endswith("-wal") for file in self.files or ()):
            return False
        with hold(self.root, wait):
            pass  # the last process to close the database does that
        return True


class Plan(Protocol):
    """What an action is going to do."""

    @property
    def seen(self) -> StoreState:
        """The state of the store that the plan was made from."""


P = TypeVar("P", bound=Plan)


def confirmed(
    plan: P, plan_again: Callable[[], P], intent: Callable[[P], object], wait: float
) -> P:
    """A plan for a store that can be held: this one, or the same made again.

    Args:
        plan_again: makes the plan from the state of the store by then.
        intent: what has to be equal in both plans.
        wait: seconds to wait for other processes to close the store.

    Raises:
        StoreChanged: the second plan is another one.
        HnswcheckError: as :func:`hnswcheck.changes.lock.hold`, or as ``plan_again`` does.
    """
    if not plan.seen.take_in_wal(wait):
        return plan
    try:
        again = plan_again()
    except UsageError as error:  # a collection that was named has gone
        raise _changed(plan.seen.root) from error
    if intent(again) != intent(plan):
        raise _changed(plan.seen.root)
    return again


def settle(root: Path, wait: float) -> Sequence[str]:
    """Finish or take back what a stopped action left; what was done, a line per segment.

    sqlite rolls back, too, what a writer that died had not committed.

    Args:
        wait: seconds to wait for other processes to close the store.

    Raises:
        StoreInUse: another process has the store open, whether or not there is anything to do.
        HnswcheckError: as :func:`hnswcheck.changes.journal.recover`.
    """
    with reading(root):
        check_path(root)
        in_use = bool(users_of(root))
    left = is_unfinished(root) or any(
        state.name in (DRAFT, f"{DATABASE}-journal") or REBUILT.match(state.name)
        for state in list_directory(root)
    )
    if left or in_use:
        with hold(root, wait) as held:
            return recover(held)
    return ()


def _changed(root: Path) -> StoreChanged:
    return StoreChanged(f"{root}: the store was written after it was read; nothing was changed")
