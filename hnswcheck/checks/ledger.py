"""Account 1: the WAL replayed over both sides, which must then name the same records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from hnswcheck.checks.sampling import Sampler
from hnswcheck.formats.id_map import IdMap
from hnswcheck.formats.strings import Flags, Strings, differences, find
from hnswcheck.report import Finding, Pending, finding
from hnswcheck.store.catalog import LARGEST_SEQ_ID, Watermark
from hnswcheck.store.wal import WalRow

#: What a row is said to have whose vector is of another dimension.
VECTOR_OF = "vector of {} bytes"


@dataclass(frozen=True, slots=True)
class Marks:
    """Which elements stand in the way of replay.

    Attributes:
        undeletable: bool (ids,): the element of each id is tombstoned or not there at all.
        tombstoned: bool (ids,): it is tombstoned.
        dead_labels: tombstoned labels that the id map never named.
        last_label: the label that was handed out last.
    """

    undeletable: Flags
    tombstoned: Flags
    dead_labels: AbstractSet[int]
    last_label: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What the WAL does to the index when Chroma opens the collection.

    Attributes:
        labels_handed_out: how many new labels replay hands out at most.
        present: for every id that replay touches, whether the index has it afterwards.
        revived: positions in the id map of ids without a live element that replay writes again.
        blocked: ids whose replay fails, because their element is tombstoned or not there.
    """

    labels_handed_out: int = 0
    present: dict[bytes, bool] = field(default_factory=dict)
    revived: frozenset[int] = frozenset()
    blocked: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Balance:
    """Account 1 after replay.

    Attributes:
        missing: ids that sqlite has and the index lacks.
        phantom: ids that the index has and sqlite lacks.
        index_ids: how many ids the index has.
    """

    missing: tuple[bytes, ...]
    phantom: tuple[bytes, ...]
    index_ids: int


def replay_index(
    rows: Sequence[WalRow], start: int, id_map: IdMap | None, marks: Marks | None, revives: bool
) -> Replay:
    """Apply the rows past ``start`` to the ids of the index.

    The rules are those of ``apply_log_chunk`` (rust/segment/src/local_hnsw.rs): add inserts an id
    that is not there; upsert inserts or changes; update changes; delete removes one that is there
    and marks its element, which fails where it is marked already.

    Args:
        marks: None where the elements were not read, or where replay starts a new index.
        revives: writing to a marked element clears the mark, as in 0.x; in 1.x it fails.
    """
    pending = [row for row in rows if row.seq_id > start]
    base = {} if id_map is None else find((r.id for r in pending), id_map.id_to_label.ids)
    present = {row.id: row.id in base for row in pending}
    at: dict[bytes, int | None] = dict(base)  # None: a label that replay handed out
    alive: set[int] = set()
    revived: set[int] = set()
    blocked: dict[bytes, None] = {}
    handed_out = 0
    for row in pending:
        position = at.get(row.id)
        match row.operation:
            case "add" | "upsert" if not present[row.id]:
                present[row.id], at[row.id] = True, None
                handed_out += 1
                if marks and not revives and marks.last_label + handed_out in marks.dead_labels:
                    blocked[row.id] = None
            case "update" | "upsert" if present[row.id] and row.vector_bytes is not None:
                if marks is None or position is None or position in alive:
                    continue
                if marks.tombstoned[position] and not revives:
                    blocked[row.id] = None
                    continue
                if marks.undeletable[position]:  # a label without an element gets one
                    revived.add(position)
                alive.add(position)
            case "delete" if present[row.id]:
                present[row.id] = False
                if marks and position is not None and marks.undeletable[position]:
                    if position not in alive:
                        blocked[row.id] = None
                    alive.discard(position)
            case _:
                pass
    if id_map is not None and id_map.shape == "instance":
        # 0.x counts a label for some re-added ids that get none: see Batch.apply there.
        handed_out = sum(row.operation in ("add", "upsert") for row in pending)
    return Replay(handed_out, present, frozenset(revived), tuple(blocked))


def replay_records(rows: Sequence[WalRow], watermark: int, records: Strings) -> Strings:
    """The ids that sqlite has once METADATA has applied the rows past its watermark."""
    unseen = [row for row in rows if row.seq_id > watermark]
    if not unseen:
        return records
    ids = dict.fromkeys(records)
    for row in unseen:
        match row.operation:
            case "add" | "upsert":
                ids[row.id] = None
            case "delete":
                ids.pop(row.id, None)
            case _:
                pass
    return Strings.of(ids)


def balance(records: Strings, replay: Replay, index_ids: Strings) -> Balance:
    """Compare both sides after replay, as sets.

    Args:
        records: what sqlite has, after replay.
        index_ids: what the id map has, before replay.
    """
    only_records, only_ids = differences(records, index_ids)
    missing = {records[i] for i in only_records.tolist()}
    phantom = {index_ids[i] for i in only_ids.tolist()}
    touched = replay.present.keys()
    recorded, indexed = find(touched, records), find(touched, index_ids)
    size = len(index_ids)
    for record, present in replay.present.items():
        size += present - (record in indexed)
        _set(missing, record, record in recorded and not present)
        _set(phantom, record, present and record not in recorded)
    return Balance(tuple(missing), tuple(phantom), size)


def _set(members: set[bytes], record: bytes, belongs: bool) -> None:
    (members.add if belongs else members.discard)(record)


def count_pending(rows: Sequence[WalRow], start: int) -> Pending:
    """Rows past the replay start, by operation."""
    counts = Counter(row.operation for row in rows if row.seq_id > start)
    return Pending(counts["add"], counts["update"], counts["upsert"], counts["delete"])


def check_balance(result: Balance, sampler: Sampler) -> Iterator[Finding]:
    """Findings of account 1."""
    if result.missing:
        sample = sampler.bytes(result.missing)
        yield finding("records-missing", len(result.missing), sample)
    if result.phantom:
        sample = sampler.bytes(result.phantom)
        yield finding("records-phantom", len(result.phantom), sample)


def check_replay(replay: Replay, sampler: Sampler) -> Iterator[Finding]:
    """Pending operations that fail."""
    if replay.blocked:
        yield finding("replay-blocked", len(replay.blocked), sampler.bytes(replay.blocked))


def check_lag(rows: Sequence[WalRow], start: int) -> Iterator[Finding]:
    """Rows past the replay start."""
    waiting = sum(row.seq_id > start for row in rows)
    if waiting:
        yield finding("lag", waiting)


def row_fault(row: WalRow, dimension: int | None) -> str | None:
    """Why Chroma cannot read a row when it replays it."""
    size = row.vector_bytes
    if row.operation is None:
        return row.fault or "unknown operation"
    if row.fault:
        return row.fault
    if size is None:
        return "no vector" if row.operation in ("add", "upsert") else None
    if dimension is not None and size != 4 * dimension:
        return f"{VECTOR_OF.format(size)}, expected {4 * dimension}"
    return "vector is no whole number of float32" if size % 4 else None


def check_rows(
    rows: Sequence[WalRow], dimension: int | None, sampler: Sampler
) -> Iterator[Finding]:
    """Rows that Chroma cannot read when it replays them."""
    faults = [(row, row_fault(row, dimension)) for row in rows]
    places = [f"seq_id {row.seq_id}: {text}" for row, text in faults if text]
    if places:
        yield finding("wal-unreadable", len(places), sampler.places(places))


def check_watermark(
    watermark: Watermark | None, integers: bool, highest: int, segment: str
) -> Iterator[Finding]:
    """Findings about one ``max_seq_id`` row.

    Args:
        integers: this Chroma line writes INTEGER (1.x), else an 8-byte BLOB.
        highest: the last seq_id in the WAL; the next write gets ``highest + 1``.
        segment: "VECTOR" or "METADATA".
    """
    if watermark is None:
        return
    # 0.5 and 0.6 read an INTEGER as well.
    forms = ("integer",) if integers else ("integer", "blob8", "blob24")
    if watermark.form not in forms:
        expected = "INTEGER" if integers else "8-byte big-endian BLOB"
        yield finding("watermark-encoding", 1, [segment], expected, watermark.form)
    value = watermark.value
    if watermark.is_number(integers) and not 0 <= value <= min(highest, LARGEST_SEQ_ID):
        yield finding("watermark-impossible", 1, [segment], f"0 to {highest}", value)
