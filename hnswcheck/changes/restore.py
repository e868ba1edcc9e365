"""Put back what a quarantine moved, unless that would lose what was written since."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from hnswcheck.changes.journal import Step, perform
from hnswcheck.changes.procedure import StoreState, confirmed, settle
from hnswcheck.changes.restore_cost import RestoreCost, restore_cost
from hnswcheck.changes.set_aside import set_aside
from hnswcheck.changes.watermark import WatermarkChange, read_watermark
from hnswcheck.errors import RestoreRefused, StoreUnreadable, UsageError, naming
from hnswcheck.isolation import call_isolated_if_open
from hnswcheck.progress import Progress, silent
from hnswcheck.store.catalog import Collection, read_collections
from hnswcheck.store.collection_view import read_collection_views
from hnswcheck.store.database import DATABASE, Database
from hnswcheck.store.files import list_directory, look_at
from hnswcheck.store.manifest import Manifest, file_prints, read_manifest
from hnswcheck.store.names import MANIFEST, OURS
from hnswcheck.store.schema import read_schema
from hnswcheck.store.view import find_database, open_store
from hnswcheck.store.watermarks import watermark


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """What a restore did, or with ``dry_run`` would do.

    Attributes:
        quarantine: the folder's name before.
        lost_writes: records written since whose vectors only the present folder has.
        lost_deletes: records deleted since that the old folder would bring back to searches.
        displaced: the new name of the folder that Chroma has made since; None if there is none.
        done: it was put back.
        finished: what was left of an earlier action and was finished first.
    """

    path: Path
    quarantine: str
    segment: str
    collection: str
    lost_writes: int
    lost_deletes: int
    displaced: str | None = None
    done: bool = False
    finished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a restore would do, and to which state of the store.

    Attributes:
        cost: what the store would lose.
    """

    manifest: Manifest
    cost: RestoreCost
    seen: StoreState


def quarantines(path: str | os.PathLike[str]) -> tuple[Manifest, ...]:
    """What :func:`restore` can put back, oldest first.

    Folders that other tools moved have no manifest of ours and are not among them, nor are those
    whose manifest cannot be read.

    Raises:
        StoreNotFound, NotAChromaStore, StoreUnreadable: it cannot be said.
    """
    return survey(path)[0]


def survey(path: str | os.PathLike[str]) -> tuple[tuple[Manifest, ...], tuple[str, ...]]:
    """:func:`quarantines`, and what is wrong with the others of ours."""
    root = Path(path)
    find_database(root)
    found: list[Manifest] = []
    problems: list[str] = []
    for state in list_directory(root):
        if state.is_directory and OURS.fullmatch(state.name):
            try:
                found.append(read_manifest(root / (state.name + MANIFEST)))
            except StoreUnreadable as error:
                problems.append(str(error))
    found.sort(key=lambda manifest: (manifest.time, len(manifest.folder), manifest.folder))
    return tuple(found), tuple(problems)


def restore(
    path: str | os.PathLike[str],
    quarantine: str,
    *,
    dry_run: bool = False,
    wait: float = 0.0,
    progress: Progress = silent,
) -> RestoreResult:
    """Undo a quarantine: the folder and its watermark are put back exactly as they were.

    A folder that Chroma has made in its place is moved aside in turn, with a manifest of its own.

    Args:
        path: the persist directory.
        quarantine: the name of the folder, as :func:`quarantines` gives it.
        dry_run: only say what would be done; writes nothing.
        wait: seconds to wait for other processes to leave the store.
        progress: called as bytes are read.

    Raises:
        RestoreRefused: what was written since would no longer be searchable; or the folder is not
            what it was, or its collection is gone.
        UsageError: there is no such quarantine.
        StoreInUse, StoreChanged, ActionFailed: nothing was changed.
        HnswcheckError: the store cannot be read.
    """
    root = Path(path)
    with naming(path):
        finished = () if dry_run else tuple(settle(root, wait))
        named = OURS.fullmatch(quarantine)
        if finished and named and not (root / quarantine).exists():  # this very restore was left
            return _finished_restore(root, quarantine, named[1], finished)
        plan = _plan_isolated(root, quarantine, progress)
        result = _result(root, plan, finished)
        if dry_run:
            return result
        if result.lost_writes or result.lost_deletes:
            raise RestoreRefused(
                f"{root}: {result.quarantine} is older than what Chroma wrote since:"
                f" {result.lost_writes:,} written and {result.lost_deletes:,} deleted records are"
                " only in the folder that is there now, and no longer in the WAL; nothing was put"
                " back"
            )
        plan = confirmed(
            plan,
            lambda: _plan_isolated(root, quarantine, progress),
            lambda plan: (plan.manifest, plan.cost),
            wait,
        )
        return replace(result, displaced=_put_back(root, plan, wait), done=True)


def _finished_restore(
    root: Path, quarantine: str, segment: str, finished: tuple[str, ...]
) -> RestoreResult:
    """The result of a restore that had been stopped, and was finished just now."""
    return RestoreResult(
        path=root,
        quarantine=quarantine,
        segment=segment,
        collection="",
        lost_writes=0,
        lost_deletes=0,
        done=True,
        finished=finished,
    )


def _result(root: Path, plan: _Plan, finished: tuple[str, ...]) -> RestoreResult:
    """The result of a dry run."""
    return RestoreResult(
        path=root,
        quarantine=plan.manifest.folder,
        segment=plan.manifest.segment,
        collection=plan.manifest.collection["name"],
        lost_writes=plan.cost.lost_writes,
        lost_deletes=plan.cost.lost_deletes,
        finished=finished,
    )


def _plan_isolated(root: Path, name: str, progress: Progress) -> _Plan:
    plan: _Plan = call_isolated_if_open(root / DATABASE, _plan, (root, name), progress)
    return plan


def _plan(root: Path, name: str, progress: Progress = silent) -> _Plan:
    manifest = _manifest(root, name, progress)
    seen = StoreState.now(root, root / name)
    with open_store(root) as store:
        collection = _owner(root, store.database, manifest.segment)
        schema = read_schema(store.database)
        (view,) = read_collection_views(store, [collection], schema, with_ids=True)
        cost = restore_cost(root, store.database, view.with_ids(), manifest)
    return _Plan(manifest=manifest, cost=cost, seen=seen.if_unchanged())


def _manifest(root: Path, name: str, progress: Progress) -> Manifest:
    state = look_at(root / name) if OURS.fullmatch(name) else None
    if state is None or not state.is_directory:
        known = ", ".join(manifest.folder for manifest in quarantines(root)) or "none"
        raise UsageError(f"{root} has no quarantine {name!r}; its quarantines are: {known}")
    manifest = read_manifest(root / (name + MANIFEST))
    own = [other for other in quarantines(root) if other.segment == manifest.segment]
    for later in own[own.index(manifest) :]:
        if _flushed_up_to(later) > _flushed_up_to(manifest):
            text = f"{later.folder} has what was flushed later; restore that first"
            raise RestoreRefused(f"{root / name}: {text}")
    now = {file.name: (file.size, file.sha256) for file in file_prints(root / name, progress)}
    then = {file.name: (file.size, file.sha256) for file in manifest.files}
    if now != then:
        changed = sorted(file for file in now | then if now.get(file) != then.get(file))
        files = ", ".join(changed)
        raise RestoreRefused(f"{root / name}: not as it was moved: {files} changed or added since")
    return manifest


def _flushed_up_to(manifest: Manifest) -> int:
    return watermark(manifest.watermark.raw).value if manifest.watermark else 0


def _owner(root: Path, database: Database, segment: str) -> Collection:
    for collection in read_collections(database, read_schema(database)):
        if collection.vector and collection.metadata and collection.vector.id == segment:
            return collection
    raise RestoreRefused(f"{root}: segment {segment} belongs to no collection any more")


def _put_back(root: Path, plan: _Plan, wait: float) -> str | None:
    """The new name of the folder that had to make room, if there was one."""
    manifest, segment = plan.manifest, plan.manifest.segment
    current = look_at(root / segment)
    if current is not None and not current.is_directory:
        raise RestoreRefused(f"{root / segment}: in the way, and not a folder")
    files = file_prints(root / segment) if current else ()
    with plan.seen.hold(wait) as held:
        now = datetime.now(UTC)
        row = read_watermark(held.connection, segment)
        moves, manifests = [(manifest.folder, segment)], dict[str, bytes]()
        name = None
        if files:
            name, manifests = set_aside(
                held,
                segment,
                now,
                manifest.collection,
                row,
                files,
                present=plan.cost.present,
                accepted=manifest.accepted,
            )
            moves.insert(0, (segment, name))
        step = Step(
            segment=segment,
            moves=tuple(moves),
            watermarks=(WatermarkChange(segment, row, manifest.watermark),),
            adds=tuple(manifests),
            removes=(manifest.folder + MANIFEST,),
        )
        perform(held, "restore", [step], manifests)
    return name
