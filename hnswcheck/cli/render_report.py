"""The report for a person: each account balanced, each finding with what it means, one verdict."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.padding import Padding
from rich.text import Text

from hnswcheck.cli.layout import Line, foreign, table, wrapped
from hnswcheck.cli.terminal import visible
from hnswcheck.findings import REGISTRY
from hnswcheck.report import ChromaInfo, Finding, Level, Pending, Report, SegmentReport, StoreReport
from hnswcheck.store_findings import KEEP, NOTHING

STATUS_STYLE = {
    "empty": "dim",
    "consistent": "green",
    "lagging": "green",
    "diverged": "bold red",
    "corrupt": "bold red",
    "undecided": "yellow",
    "damaged": "bold red",
}
SEVERITY_STYLE = {"error": "bold red", "warning": "yellow", "info": "cyan"}
NO_STORE = {kind.id for kind in REGISTRY.values() if kind.no_store}


def lines(report: Report, quiet: bool = False) -> Iterator[Line]:
    """A report; with ``quiet`` only the verdict of each store.

    Of a path that is no store there is nothing to show: its error said it all.
    """
    shown = [s for s in report.stores if not NO_STORE & {f.id for f in s.findings}]
    for number, store in enumerate(shown):
        if number and not quiet:
            yield Text()
        yield from () if quiet else _store(store)
        yield _verdict(store)


def _store(store: StoreReport) -> Iterator[Line]:
    chroma = f"Chroma {foreign(store.chroma.releases)}, " if store.chroma else ""
    many = f"{_count(len(store.segments), 'collection')}, " if store.chroma else ""
    yield Text(visible(store.path), "bold")
    yield Text(f"  {chroma}{many}level {store.level}, {store.elapsed_seconds:.2f} s", "dim")
    if store.chroma:
        yield from _releases(store.chroma)
    for found in store.findings:
        yield from _finding(found, 2)
    for segment in store.segments:
        yield Text()
        yield from _segment(segment, store.level)
    yield from _what_to_do(store)
    yield Text()


def _releases(chroma: ChromaInfo) -> Iterator[Text]:
    if chroma.judged_for is not None:
        yield Text(f"  judged for Chroma {foreign(chroma.judged_for)}", "dim")
    if chroma.readable_by is not None:
        which = ", ".join(map(foreign, chroma.readable_by)) or "none"
        yield from wrapped(Text(f"Chroma releases that can open this: {which}", "dim"), 2, 4)


def _segment(segment: SegmentReport, level: Level) -> Iterator[Line]:
    c = segment.collection
    where = f"{foreign(c.tenant)}/{foreign(c.database)}"
    status = (segment.status, STATUS_STYLE[segment.status])
    dimension = f", {c.dimension} dimensions" if c.dimension else ""
    details = (f"  ({where}{dimension}, {foreign(c.space)})", "dim")
    yield from wrapped(Text.assemble((foreign(c.name), "bold"), details, "  ", status), 2, 4)
    if segment.status != "empty":
        if segment.vector_segment:
            yield Text(f"    segment {foreign(segment.vector_segment)}", "dim")
        yield _ledger(segment, level)
        for line in _sums(segment):
            yield from wrapped(line, 4, 6)
    for found in segment.findings:
        yield from _finding(found, 4)


def _ledger(segment: SegmentReport, level: Level) -> Padding:
    """Both accounts, as columns: what sqlite has, what the index has, and why they differ."""
    ledger = segment.ledger
    disk = (ledger.records, ledger.index_ids)
    rows = [("", "sqlite", "index", ""), ("on disk", *map(_number, disk), "")]
    if level is not Level.PROBE:
        sides = (ledger.records_after_replay, ledger.index_ids_after_replay)
        share = [_number(_difference(a, b), "+,") for a, b in zip(sides, disk, strict=True)]
        rows.append(("in the WAL", *share, _operations(ledger.pending or Pending())))
        rows.append(("after replay", *map(_number, sides), ""))
    return table(rows, ("left", "right", "right", "left"), (12, 12, 12, 0), 4)


def _sums(segment: SegmentReport) -> Iterator[str]:
    ledger = segment.ledger
    if ledger.missing is not None or ledger.phantom is not None:
        balance = "balances" if not (ledger.missing or ledger.phantom) else "does not balance"
        missing, phantom = _number(ledger.missing), _number(ledger.phantom)
        yield f"{balance}: {missing} missing from the index, {phantom} unknown to sqlite"
    if ledger.swallowed:
        yield f"besides: {ledger.swallowed:,} rows of the WAL that the watermark skips"
    if ledger.elements is not None and ledger.live is not None:
        yield (
            f"elements: {ledger.elements:,} = {ledger.live:,} live + {ledger.tombstones or 0:,}"
            f" deleted; {_number(ledger.total_elements_added)} labels handed out"
        )
    sources = segment.recoverable
    named = (
        ("in the segment", sources.from_segment),
        ("in the WAL", sources.from_wal),
        ("in quarantined folders", sources.from_quarantine),
        ("suspect", sources.suspect),
        ("nowhere", sources.lost),
    )
    found = [f"{count:,} {where}" for where, count in named if count]
    if found:
        unknown = "" if sources.lost is not None else "; the rest is unknown"
        yield f"vectors: {', '.join(found)}{unknown}"


def _operations(pending: Pending) -> str:
    if not pending.total:
        return ""
    named = (("add", pending.add), ("update", pending.update), ("upsert", pending.upsert))
    parts = [f"{n:,} {name}" for name, n in (*named, ("delete", pending.delete)) if n]
    return f"{_count(pending.total, 'operation')} not flushed yet: {', '.join(parts)}"


def _finding(found: Finding, indent: int) -> Iterator[Text]:
    head = f"{found.count:,} {found.title}" if found.count != 1 else found.title
    style = SEVERITY_STYLE[found.severity]
    line = Text.assemble((found.severity, style), "  ", (found.id, "bold"), f"  {head}")
    deep = indent + 4
    yield from wrapped(line, indent, deep)
    if found.sample:
        yield from wrapped(_sample(found), deep)
    facts = [
        f"{what} {foreign(_fact(value))}"
        for what, value in (("expected", found.expected), ("found", found.found))
        if value is not None
    ]
    if facts:
        yield from wrapped(", ".join(facts), deep)
    if found.severity != "info":
        yield from wrapped(f"Chroma: {found.consequence}", deep, deep + 2)


def _sample(found: Finding) -> str:
    if found.id in REGISTRY and REGISTRY[found.id].group == "graph":
        return _grouped(found.sample)
    more = found.count - len(found.sample)
    names = ", ".join(map(foreign, found.sample))
    return f"{names}{f' and {more:,} more' if more > 0 else ''}"


def _grouped(places: Iterable[str]) -> str:
    """Places of links, those of one level together.

    >>> _grouped(["element 0, level 0", "element 3, level 0", "element 3, level 1"])
    'level 0 of elements 0, 3; level 1 of element 3'
    """
    levels: dict[str, list[str]] = {}
    for place in places:
        element, _, level = place.removeprefix("element ").partition(", ")
        levels.setdefault(level, []).append(element)
    return "; ".join(
        f"{level} of element{'s' if len(of) > 1 else ''} {', '.join(of)}"
        for level, of in levels.items()
    )


def _what_to_do(store: StoreReport) -> Iterator[Text]:
    """Each remedy once, whatever number of findings it is for; a copy comes first."""
    remedies: dict[str, dict[str, None]] = {}
    for found in store.all_findings:
        remedy = " ".join(found.remedy.replace(KEEP, "").split())
        if found.severity != "info" and remedy not in ("", NOTHING):
            remedies.setdefault(remedy, {})[found.id] = None
    steps = [f"{', '.join(ids)}: {remedy}" for remedy, ids in remedies.items()]
    if store.verdict == "damaged":
        steps.insert(0, KEEP)
    if not steps:
        return
    yield Text()
    yield Text("  What to do now", "bold")
    for number, step in enumerate(steps, 1):
        yield from wrapped(f"{f'{number}.':3} {step}", 4, 8)


def _verdict(store: StoreReport) -> Text:
    statuses = [segment.status for segment in store.segments]
    bad = sum(segment.is_damaged for segment in store.segments)
    unsure = sum(status == "undecided" for status in statuses)
    lagging = statuses.count("lagging")
    style = STATUS_STYLE[store.verdict]
    path = visible(store.path)
    match store.verdict:
        case "damaged":
            what = f"{bad} of {_count(len(statuses), 'collection')}" if bad else "the store itself"
            detail = f"{what}; see the findings"
        case "undecided":
            what = f"{unsure} of {_count(len(statuses), 'collection')}" if unsure else "the store"
            detail = f"{what} could not be judged; see the findings"
        case _ if store.level is Level.PROBE:
            detail = (
                f"the counts of {_count(len(statuses), 'collection')} do not contradict each"
                " other; only level standard can prove consistency"
            )
        case _:
            replayed = f", {lagging} of them once Chroma has replayed its WAL" if lagging else ""
            detail = (
                f"records and vector index agree in {_count(len(statuses), 'collection')}{replayed}"
            )
    return Text.assemble((store.verdict, style), f": {path}: {detail}")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _number(value: int | None, spec: str = ",") -> str:
    return "unknown" if value is None else format(value, spec)


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _fact(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)
