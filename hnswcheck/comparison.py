"""Two reports compared: what appeared, what went, what changed, and whether anything got worse."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from hnswcheck.kinds import SEVERITIES, Severity, Status
from hnswcheck.report import (
    CollectionInfo,
    Finding,
    Report,
    SegmentReport,
    StoreReport,
    Tool,
    Verdict,
)

SCHEMA_ID = "hnswcheck.diff/1"

Change = Literal["appeared", "gone", "changed"]
V = TypeVar("V")

#: How bad each is; what cannot be judged is worse than what is sound, and better than damage.
STANDING: Mapping[Status | Verdict, int] = {
    "empty": 0, "consistent": 0, "lagging": 0, "undecided": 1, "diverged": 2, "damaged": 2,
    "corrupt": 3,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tally:
    """All findings of one id in one place, counted together.

    Attributes:
        severity: the highest of them.
        count: the sum of their counts.
        sample: of all of them, each once.
    """

    severity: Severity
    count: int
    sample: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FindingChange:
    """What became of the findings of one id; None where there was none, or is none."""

    id: str
    title: str
    before: Tally | None
    after: Tally | None

    @property
    def change(self) -> Change:
        """Whether it came, went, or is another."""
        return _change(self.before, self.after)

    @property
    def is_worse(self) -> bool:
        """An error or warning that is new, affects more than before, or was less severe."""
        before, after = self.before, self.after
        if after is None or after.severity == "info":
            return False
        if before is None or after.count > before.count:
            return True
        return SEVERITIES.index(after.severity) > SEVERITIES.index(before.severity)


@dataclass(frozen=True, slots=True)
class CollectionChange:
    """What became of one collection; None where it was not there, or is not."""

    collection: CollectionInfo
    before: Status | None
    after: Status | None
    findings: tuple[FindingChange, ...]

    @property
    def change(self) -> Change:
        """Whether it came, went, or is another."""
        return _change(self.before, self.after)

    @property
    def is_worse(self) -> bool:
        """Its status fell, or a finding of it got worse."""
        return _fell(self.before, self.after) or any(f.is_worse for f in self.findings)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreChange:
    """What became of one store; None where a report does not have it.

    Attributes:
        levels: what was read before and after: a deeper reading finds what was there before, too.
        findings: of the store itself.
    """

    path: str
    before: Verdict | None
    after: Verdict | None
    levels: tuple[str | None, str | None]
    findings: tuple[FindingChange, ...]
    collections: tuple[CollectionChange, ...]

    @property
    def change(self) -> Change:
        """Whether it came, went, or is another."""
        return _change(self.before, self.after)

    @property
    def is_worse(self) -> bool:
        """Its verdict fell, or a finding or a collection of it got worse."""
        parts: tuple[FindingChange | CollectionChange, ...] = (*self.findings, *self.collections)
        return _fell(self.before, self.after) or any(each.is_worse for each in parts)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two reports compared; only what is different is named.

    Attributes:
        stores: those in which anything is different, in the order of the new report, then those
            that only the old one has.
    """

    stores: tuple[StoreChange, ...]
    tool: Tool = field(default_factory=Tool)
    schema: str = SCHEMA_ID

    @property
    def is_worse(self) -> bool:
        """Whether anything got worse."""
        return any(store.is_worse for store in self.stores)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form as plain values."""
        return {
            "schema": self.schema,
            "tool": asdict(self.tool),
            "worse": self.is_worse,
            "stores": [_store_as_dict(store) for store in self.stores],
        }

    def to_json(self, indent: int | None = 2) -> str:
        """The JSON form; ASCII only."""
        return json.dumps(self.to_dict(), indent=indent)


def diff(old: Report, new: Report) -> Comparison:
    """Compare two reports: stores by path, collections by id, findings by id.

    Worse is an error or warning that is new, counts more than before or was less severe before; and
    a status or verdict that fell: from sound to undecided, and from either to damaged. A store or
    a collection that is in one of the reports only is no loss in itself.

    Example:
        >>> import hnswcheck
        >>> nothing = hnswcheck.Report(())
        >>> hnswcheck.diff(nothing, nothing).is_worse
        False
    """
    stores = _pairs(old.stores, new.stores, lambda store: store.path)
    changes = (_store_change(*both) for both in stores)
    return Comparison(tuple(change for change in changes if change is not None))


def _pairs(
    old: Iterable[V], new: Iterable[V], key: Callable[[V], str]
) -> Iterator[tuple[V | None, V | None]]:
    """What has one key in both; the second with a key belongs to the second of the other side."""
    before, after = _numbered(old, key), _numbered(new, key)
    for each in {**after, **before}:
        yield before.get(each), after.get(each)


def _numbered(values: Iterable[V], key: Callable[[V], str]) -> dict[tuple[str, int], V]:
    found: dict[tuple[str, int], V] = {}
    many: Counter[str] = Counter()
    for value in values:
        name = key(value)
        many[name] += 1
        found[name, many[name]] = value
    return found


def _change(before: object, after: object) -> Change:
    if before is None:
        return "appeared"
    return "gone" if after is None else "changed"


def _fell(before: Status | Verdict | None, after: Status | Verdict | None) -> bool:
    if after is None:
        return False
    return STANDING[after] > (STANDING[before] if before is not None else 0)


def _store_change(old: StoreReport | None, new: StoreReport | None) -> StoreChange | None:
    one = new or old
    assert one is not None
    segments = _pairs(
        old.segments if old else (), new.segments if new else (), lambda one: one.collection.id
    )
    collections = (_collection_change(*both) for both in segments)
    change = StoreChange(
        path=one.path,
        before=old.verdict if old else None,
        after=new.verdict if new else None,
        levels=(old.level.value if old else None, new.level.value if new else None),
        findings=_finding_changes(old.findings if old else (), new.findings if new else ()),
        collections=tuple(each for each in collections if each is not None),
    )
    differs = change.before != change.after or change.levels[0] != change.levels[1]
    return change if differs or change.findings or change.collections else None


def _collection_change(
    old: SegmentReport | None, new: SegmentReport | None
) -> CollectionChange | None:
    one = new or old
    assert one is not None
    before, after = old.status if old else None, new.status if new else None
    findings = _finding_changes(old.findings if old else (), new.findings if new else ())
    if before == after and not findings:
        return None
    return CollectionChange(one.collection, before, after, findings)


def _finding_changes(old: Sequence[Finding], new: Sequence[Finding]) -> tuple[FindingChange, ...]:
    titles = {found.id: found.title for found in (*new, *old)}
    before, after = _tallies(old), _tallies(new)
    return tuple(
        FindingChange(id, title, before.get(id), after.get(id))
        for id, title in titles.items()
        if before.get(id) != after.get(id)
    )


def _tallies(findings: Iterable[Finding]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for found in findings:
        so_far = tallies.get(found.id, Tally("info", 0, ()))
        tallies[found.id] = Tally(
            max(so_far.severity, found.severity, key=SEVERITIES.index),
            so_far.count + found.count,
            tuple(dict.fromkeys(so_far.sample + found.sample)),
        )
    return tallies


def _store_as_dict(store: StoreChange) -> dict[str, Any]:
    before, after = store.levels
    return {
        "path": store.path,
        "change": store.change,
        "worse": store.is_worse,
        "verdict": {"before": store.before, "after": store.after},
        "level": {"before": before, "after": after},
        "findings": [_finding_as_dict(found) for found in store.findings],
        "collections": [
            {
                "collection": asdict(each.collection),
                "change": each.change,
                "worse": each.is_worse,
                "status": {"before": each.before, "after": each.after},
                "findings": [_finding_as_dict(found) for found in each.findings],
            }
            for each in store.collections
        ],
    }


def _finding_as_dict(found: FindingChange) -> dict[str, Any]:
    return {
        "id": found.id,
        "change": found.change,
        "worse": found.is_worse,
        "title": found.title,
        "before": asdict(found.before) if found.before else None,
        "after": asdict(found.after) if found.after else None,
    }
