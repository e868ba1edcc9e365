"""The report for a person: each account balanced, each finding with what it means, one verdict."""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from hnswcheck.cli.terminal import visible
from hnswcheck.report import Finding, Level, Pending, Report, SegmentReport, StoreReport

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
MINUS = "-"
NO_STORE = {"store-not-found", "not-a-chroma-store"}


def lines(report: Report, quiet: bool = False) -> Iterator[Text]:
    """A report; with ``quiet`` only the verdict of each store.

    Of a path that is no store there is nothing to show: its error said it all.
    """
    shown = [s for s in report.stores if not NO_STORE & {f.id for f in s.findings}]
    for number, store in enumerate(shown):
        if number and not quiet:
            yield Text()
        yield from () if quiet else _store(store)
        yield _verdict(store)


def _store(store: StoreReport) -> Iterator[Text]:
    chroma = f"Chroma {store.chroma.line}, " if store.chroma else ""
    many = f"{_count(len(store.segments), 'collection')}, " if store.chroma else ""
    yield Text.assemble((visible(store.path), "bold"))
    yield Text(f"  {chroma}{many}level {store.level}, {store.elapsed_seconds:.2f} s", "dim")
    for found in store.findings:
        yield from _finding(found, "  ")
    for segment in store.segments:
        yield Text()
        yield from _segment(segment, store.level)
    yield Text()


def _segment(segment: SegmentReport, level: Level) -> Iterator[Text]:
    c = segment.collection
    where = visible(f"{c.tenant}/{c.database}")
    status = (segment.status, STATUS_STYLE[segment.status])
    dimension = f", {c.dimension} dimensions" if c.dimension else ""
    details = (f"  ({where}{dimension}, {c.space})", "dim")
    yield Text.assemble("  ", (visible(c.name), "bold"), details, "  ", status)
    if segment.status != "empty":
        if segment.vector_segment:
            yield Text(f"    segment {visible(segment.vector_segment)}", "dim")
        yield from (Text("    " + line) for line in _account(segment, level))
    for found in segment.findings:
        yield from _finding(found, "    ")


def _account(segment: SegmentReport, level: Level) -> Iterator[str]:
    """Both accounts, as columns: what sqlite has, what the index has, and why they differ."""
    ledger = segment.ledger
    pending = ledger.pending or Pending()
    rows = [("on disk", ledger.records, ledger.index_ids)]
    if level is not Level.PROBE:
        sides = (ledger.records_after_replay, ledger.index_ids_after_replay)
        share = [_difference(a, b) for a, b in zip(sides, rows[0][1:], strict=True)]
        rows += [("in the WAL", *share), ("after replay", *sides)]  # type: ignore[list-item]
    yield f"{'':14}{'sqlite':>12}{'index':>12}"
    for name, records, ids in rows:
        signed = "+," if name == "in the WAL" else ","
        note = _operations(pending) if name == "in the WAL" else ""
        yield f"{name:14}{_number(records, signed):>12}{_number(ids, signed):>12}{note}"
    if ledger.missing is not None or ledger.phantom is not None:
        balance = "balances" if not (ledger.missing or ledger.phantom) else "does not balance"
        missing, phantom = _number(ledger.missing), _number(ledger.phantom)
        yield f"{balance}: {missing} missing from the index, {phantom} unknown to sqlite"
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
        unknown = "" if sources.lost is not None else "; the rest cannot be told"
        yield f"vectors: {', '.join(found)}{unknown}"


def _operations(pending: Pending) -> str:
    if not pending.total:
        return ""
    named = (("add", pending.add), ("update", pending.update), ("upsert", pending.upsert))
    parts = [f"{n:,} {name}" for name, n in (*named, ("delete", pending.delete)) if n]
    return f"   {_count(pending.total, 'operation')} not flushed yet: {', '.join(parts)}"


def _finding(found: Finding, indent: str) -> Iterator[Text]:
    style = SEVERITY_STYLE[found.severity]
    head = f"{found.count:,} {found.title}" if found.count != 1 else found.title
    yield Text.assemble(indent, (found.severity, style), "  ", (found.id, "bold"), f"  {head}")
    deep = indent + "    "
    if found.sample:
        more = found.count - len(found.sample)
        names = ", ".join(map(visible, found.sample))
        yield Text(f"{deep}{names}{f' and {more:,} more' if more > 0 else ''}")
    facts = [
        f"{what} {visible(_fact(value))}"
        for what, value in (("expected", found.expected), ("found", found.found))
        if value is not None
    ]
    if facts:
        yield Text(f"{deep}{', '.join(facts)}")
    if found.severity != "info":
        yield Text(f"{deep}Chroma: {found.consequence}")
        yield Text(f"{deep}Do: {found.remedy}")


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
