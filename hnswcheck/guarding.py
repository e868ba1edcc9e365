"""Checks around risky work: before it, or before and after it."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast

from hnswcheck.auditing.request import AuditRequest
from hnswcheck.auditing.runner import audit_in_process, report_of_failure
from hnswcheck.errors import HnswcheckError, UsageError, naming
from hnswcheck.isolation import call_in_child, call_isolated_if_open
from hnswcheck.progress import silent
from hnswcheck.report import Level, Report, StoreReport
from hnswcheck.store.database import DATABASE


class Client(Protocol):
    """A ``chromadb.PersistentClient``."""

    def get_settings(self) -> Any:
        """Settings that name the persist directory."""


F = TypeVar("F", bound=Callable[..., Any])
Store = str | os.PathLike[str] | Client


class StoreDamaged(HnswcheckError):
    """A store is damaged.

    Attributes:
        report: the audit that says so.
    """

    exit_code = 1
    finding = None

    def __init__(self, report: Report, when: str = "") -> None:
        super().__init__(_summary(report, when))
        self.report = report


class StoreBroken(StoreDamaged):
    """A store was sound before a guarded block, and is damaged after it.

    Attributes:
        before, after: both audits; ``report`` is the latter.
    """

    def __init__(self, before: Report, after: Report) -> None:
        super().__init__(after, "after the guarded block, not before it: ")
        self.before = before
        self.after = after


class StoreUndecided(HnswcheckError):
    """A store could not be judged.

    Attributes:
        report: the audit that says why.
    """

    finding = None

    def __init__(self, report: Report) -> None:
        super().__init__(_summary(report, ""))
        self.report = report


def ensure_consistent(
    store: Store,
    level: Level | str = Level.STANDARD,
    collections: Iterable[str] | None = None,
) -> Report:
    """Audit a store and raise unless it is consistent.

    Nothing is remembered from one call to the next. For a store that is open in this process, the
    audit runs in another one; at level "probe" that one waits for further calls for a minute.

    Args:
        store: a persist directory, or a ``chromadb.PersistentClient``.
        level: "standard", or "probe", which compares counts within milliseconds and can prove
            damage, never consistency; or "deep".
        collections: names or ids; None for all.

    Returns:
        The report of the audit.

    Raises:
        StoreDamaged: with the report.
        StoreUndecided: with the report: it could not be read, or changed while it was.
        StoreNotFound, NotAChromaStore: there is no store.
        UsageError: an unknown level or collection, or a client without a persist directory.

    Example:
        >>> import hnswcheck
        >>> hnswcheck.ensure_consistent("no-such-directory")
        Traceback (most recent call last):
        ...
        hnswcheck.errors.StoreNotFound: no-such-directory: no such directory
    """
    return _consistent(_judged(AuditRequest.of(directory_of(store), level, collections)))


class guard:  # noqa: N801 - used like a function
    """Check a store before a block and after it.

    As a context manager, with ``with`` or ``async with`` (which reads in another process, so that
    the event loop goes on), or as a decorator of a function or coroutine function:

        with hnswcheck.guard("./chroma") as g:
            collection.add(...)
        print(g.after.verdict)

    What :func:`ensure_consistent` raises before the block keeps it from being run. After it,
    :class:`StoreBroken` carries both reports; it is raised from the block's own exception, if
    there was one. An exception of the block passes if the store is sound or cannot be judged; an
    interruption (KeyboardInterrupt, a cancelled task) passes at once, unchecked.

    Args:
        store: as for :func:`ensure_consistent`.
        level: as for :func:`ensure_consistent`.
        collections: as for :func:`ensure_consistent`.

    Attributes:
        before: the report of the audit before the block; None until there is one.
        after: the report of the audit after the block; None until there is one.
    """

    def __init__(
        self,
        store: Store,
        level: Level | str = Level.STANDARD,
        collections: Iterable[str] | None = None,
    ) -> None:
        directory = directory_of(store).absolute()  # the block may change the current one
        self._request = AuditRequest.of(directory, level, collections)
        self.before: Report | None = None
        self.after: Report | None = None

    def __enter__(self) -> Self:
        self.after = None
        self.before = _consistent(_judged(self._request))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            with _unless_it_failed(error):
                self._conclude(_judged(self._request), error)

    async def __aenter__(self) -> Self:
        self.after = None
        self.before = _consistent(await _in_a_thread(_judged_in_child, self._request))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None or issubclass(kind, Exception):
            with _unless_it_failed(error):
                report = await _in_a_thread(_judged_in_child, self._request)
                self._conclude(report, error)

    def __call__(self, function: F) -> F:
        """Guard every call of a function, each with a guard of its own."""

        def another() -> guard:
            made = guard.__new__(guard)
            made._request, made.before, made.after = self._request, None, None
            return made

        later = isinstance(function, classmethod | staticmethod | type)
        if later or inspect.isasyncgenfunction(function):
            raise UsageError(
                "guard decorates functions and coroutine functions; use it as a with block here"
            )

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                async with another():
                    return await function(*args, **kwargs)

            return cast(F, awaited)

        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def iterated(*args: Any, **kwargs: Any) -> Any:
                with another():
                    return (yield from function(*args, **kwargs))

            return cast(F, iterated)

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with another():
                result = function(*args, **kwargs)
                if inspect.isawaitable(result) or inspect.isgenerator(result):
                    raise UsageError(
                        "the guarded function returned a coroutine or generator, which would"
                        " run unguarded"
                    )
                return result

        return cast(F, called)

    def _conclude(self, after: Report, error: BaseException | None) -> None:
        self.after = after
        assert self.before
        if after.verdict == "damaged":
            raise StoreBroken(self.before, after) from error
        if error is None:
            _consistent(after)


async def _in_a_thread(function: Callable[[AuditRequest], Report], request: AuditRequest) -> Report:
    import asyncio  # who awaits this has it; the command line starts faster without

    return await asyncio.to_thread(function, request)


@contextmanager
def _unless_it_failed(error: BaseException | None) -> Iterator[None]:
    """Where the block failed, that is what its caller must hear of; unless the store broke."""
    try:
        yield
    except StoreBroken:
        raise
    except HnswcheckError:
        if error is None:
            raise


def directory_of(store: Store) -> Path:
    """The persist directory of a path or of a PersistentClient.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(store, str | os.PathLike):
        return Path(store)
    try:
        settings = store.get_settings()
        persistent, directory = settings.is_persistent, settings.persist_directory
        elsewhere = settings.chroma_server_host
    except AttributeError as error:
        raise UsageError(f"this is neither a path nor a PersistentClient: {store!r}") from error
    if elsewhere or not (persistent is True and isinstance(directory, str)):
        raise UsageError("this client keeps no store on this machine's disks")
    return Path(directory)


def _judged(request: AuditRequest) -> Report:
    def audited() -> StoreReport:
        keep = request.level is Level.PROBE
        return call_isolated_if_open(
            request.directory / DATABASE, audit_in_process, (request,), silent, keep
        )

    return _reported(request, audited)


def _judged_in_child(request: AuditRequest) -> Report:
    """Audit in a child process even if nothing is open here: reading would block other threads."""
    keep = request.level is Level.PROBE
    return _reported(request, lambda: call_in_child(audit_in_process, (request,), None, keep))


def _reported(request: AuditRequest, audited: Callable[[], StoreReport]) -> Report:
    """A report also of a store that cannot be read."""
    try:
        with naming(request.directory):
            return Report((audited(),))
    except UsageError:
        raise
    except HnswcheckError as error:
        return Report((report_of_failure(request.directory, request.level, error),))


def _consistent(report: Report) -> Report:
    if report.verdict == "damaged":
        raise StoreDamaged(report)
    if report.verdict == "undecided":
        raise StoreUndecided(report)
    return report


def _summary(report: Report, when: str) -> str:
    """One line: the store, and what is wrong with which collection."""
    (store,) = report.stores
    worst = [f for f in store.findings if f.severity != "info"]
    said = [f"{found.id}{_names(found.sample)}" for found in worst]
    for segment in store.segments:
        if segment.is_damaged or segment.status == "undecided":
            found = ", ".join(
                f"{one.count:,} {one.id}" for one in segment.findings if one.severity != "info"
            )
            said.append(f"{segment.collection.name} is {segment.status} ({found})")
    return f"{store.path}: {when}{store.verdict}: {'; '.join(said)}"


def _names(sample: tuple[str, ...]) -> str:
    return f" ({', '.join(sample)})" if sample else ""
