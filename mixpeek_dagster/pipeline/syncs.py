"""Follow one source: list a page, merge it with the registered keys, record the difference in one transaction; repeat.

A pass never trusts modification times, listing order, or one missing page: unchanged keys cost a comparison, changed ones become
objects and batch items in the transaction that moves the cursor, and a key that was not listed is asked for by name before its object
goes. A pass may stop after any page and go on later, in another process.
"""

import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.syncs import KeyState, LockLost
from mixpeek_dagster.errors import BadListing, CatalogError, MixpeekError
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.ids import SyncId, SyncJobId, new_id
from mixpeek_dagster.models.syncs import Counters, Phase, Sync, SyncCursor, SyncMode, SyncStatus
from mixpeek_dagster.pipeline.intake import Intake
from mixpeek_dagster.pipeline.removal import finish_removals, remove_objects
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.provider import Entry, ObjectSource

LOCK_S = 120.0
_SURE_DELETES = 100  # so many missing files are believed without asking, however small the source is
_HEADS = 8
_IDLE_PAGES = 1000  # so many pages in a row without a new file: the listing goes round in circles


@dataclass(frozen=True)
class Progress:
    """What one call of `advance` did. `finished` is False when the pass goes on in the next call; `error` is why it stopped early."""

    sync: Sync
    counters: Counters
    finished: bool
    error: str | None = None


def advance(warehouse: Warehouse, sync_id: SyncId, *, budget_s: float, force: bool = False) -> Progress | None:
    """Start or continue a pass, for at most about `budget_s` seconds.

    None when there is nothing to do: the pass is not due (and not `force`d), the sync is paused, or another process has its lock.
    Errors of the provider end the call, are recorded on the sync, and keep the cursor: the next call repeats the failed page.
    """
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        sync = records.syncs.get(sync_id)
        wanted = force or records.syncs.is_due(sync_id, now=now)
        if not wanted or sync.status is SyncStatus.SUSPENDED:
            return None
        if not records.syncs.lock(sync_id, owner=warehouse.owner, now=now, until=warehouse.now(plus_s=LOCK_S)):
            return None
        bucket = records.buckets.get(sync.bucket_id, namespace_id=sync.namespace_id)
    try:
        return _Pass(warehouse, sync, bucket).run(deadline=time.monotonic() + budget_s)
    except LockLost:
        return None
    except CatalogError:
        raise  # it could not be recorded
    except MixpeekError as error:
        return _record_failure(warehouse, sync_id, error)
    finally:
        with warehouse.catalog.transaction() as records:
            records.syncs.unlock(sync_id, owner=warehouse.owner)


def config_hash(sync: Sync, bucket: Bucket, *, place: str) -> str:
    """Changes when a pass could take other files, or make other objects of them; credentials are not in it.

    Args:
        place: what the source lists, as its `uri`: a connection may be pointed at another bucket.
    """
    spec = sync.spec.model_dump_json(include={"source_path", "file_filters", "schema_mapping"})
    return hashlib.sha256(f"{sync.provider}{place}{spec}{bucket.bucket_schema.model_dump_json()}".encode()).hexdigest()[:16]


class _Pass:
    """One call's share of a pass. `cursor` is what the catalog holds, moved only in the transaction that does the work."""

    def __init__(self, warehouse: Warehouse, sync: Sync, bucket: Bucket) -> None:
        self.warehouse = warehouse
        self.sync = sync
        self.cursor = sync.cursor
        self.source: ObjectSource = warehouse.source(sync)
        self.intake = Intake(sync, bucket, self.source)
        self.started = time.perf_counter()
        self.config_hash = config_hash(sync, bucket, place=self.source.uri)
        self.drifted = sync.cursor.config_hash != self.config_hash

    def run(self, *, deadline: float) -> Progress:
        if self.cursor.phase is Phase.IDLE or self.cursor.pass_hash != self.config_hash:
            self._begin()
        while self._phase() is not Phase.IDLE:
            if self._phase() is Phase.DELETE:
                self._confirm_missing()
            else:
                self._take_page()
            if time.monotonic() >= deadline and self._phase() is not Phase.IDLE:
                return Progress(self.sync, self.cursor.counters, finished=False)
        return Progress(self.sync, self.sync.last_counters or Counters(), finished=True)

    def _phase(self) -> Phase:
        return self.cursor.phase

    def _begin(self) -> None:
        """Start a pass; one that was under way with another configuration is given up."""
        sync, now = self.sync, self.warehouse.now()
        unordered = self.cursor.unordered or self.source.capabilities.order == "unordered"
        cursor = SyncCursor(
            phase=Phase.SWEEP if unordered else Phase.SCAN,
            unordered=unordered,
            generation=self.cursor.generation + 1,
            config_hash=self.cursor.config_hash,
            pass_hash=self.config_hash,
            job_id=SyncJobId(new_id("job")),
            started_at=now,
            confirmed_deletes=sync.confirm_deletes,
        )
        with self.warehouse.catalog.transaction() as records:
            if self.cursor.phase is not Phase.IDLE:
                records.syncs.forget_missing(sync.sync_id)
                if self.cursor.job_id is not None:
                    words = "The sync was changed; its pass started again."
                    records.syncs.save_job(
                        self.cursor.job_id, status="failed", counters=self.cursor.counters, now=now, error=words
                    )
            queued = records.syncs.queued_job(sync.sync_id)
            if queued is not None:  # somebody asked for this pass, and knows its id
                records.syncs.start_job(queued, now=now)
                cursor = cursor.model_copy(update={"job_id": queued})
            elif cursor.job_id is not None:
                trigger = "manual" if sync.triggered_at else "scheduled"
                records.syncs.add_job(cursor.job_id, sync.sync_id, trigger=trigger, now=now)
            full = self.cursor.full or records.syncs.get(sync.sync_id).pending_full
            cursor = cursor.model_copy(update={"full": full})
            # Due from here on until it ends, however it was started.
            self._save(records, cursor, triggered_at=None, pending_full=False, confirm_deletes=False, next_pass_at=now)

    # Listing

    def _take_page(self) -> None:
        cursor, sweeping = self.cursor, self.cursor.phase is Phase.SWEEP
        page = self.source.list_page(after=None if sweeping else cursor.after_key, token=cursor.token)
        entries: Sequence[Entry] = page.entries
        if page.token is not None and page.token in (cursor.token, cursor.landmark):
            raise BadListing(f"The listing of {self.source.uri} goes round in circles: it continues where it was before.")
        if cursor.idle_pages > _IDLE_PAGES:
            raise BadListing(f"The listing of {self.source.uri} names no new file on {cursor.idle_pages} pages in a row.")
        if sweeping:
            entries = list({entry.key: entry for entry in entries}.values())  # without an order a page may name a file twice
        elif not _ascends(entries, cursor.after_key):
            return self._restart_unordered()
        last = page.token is None
        upto = entries[-1].key if entries and not last else None
        fresh: Sequence[tuple[Entry, tuple[object, ...] | None]] = []
        missing: Sequence[bytes] = []
        with self.warehouse.catalog.transaction() as records:
            if sweeping:
                known = records.syncs.keys_named(self.sync.sync_id, [entry.key for entry in entries])
                fresh = [(entry, known.get(entry.key)) for entry in entries]
                first_seen = records.syncs.mark_seen(self.sync.sync_id, list(known), generation=cursor.generation)
                is_idle = not first_seen and len(known) == len(entries)
            else:
                is_idle = not entries
                if entries or last:
                    rows = records.syncs.keys_between(self.sync.sync_id, cursor.after_key, upto)
                    fresh, missing = _merge(entries, rows)
            counters = self._register(records, fresh, unchanged=entries)
            records.syncs.set_key_state(self.sync.sync_id, missing, KeyState.MISSING)
            cursor = cursor.model_copy(
                update={
                    "after": entries[-1].key.hex() if entries else cursor.after,
                    "token": page.token,
                    "counters": counters,
                    "idle_pages": cursor.idle_pages + 1 if is_idle else 0,
                    # Brent's way to find a circle: remember where we were after 1, 2, 4, 8 … pages.
                    "landmark": page.token if counters.pages & (counters.pages - 1) == 0 else cursor.landmark,
                    "phase": Phase.DELETE if last else cursor.phase,
                }
            )
            if last and sweeping:
                records.syncs.mark_unseen_missing(self.sync.sync_id, generation=cursor.generation)
            if last:
                self.intake.close_batches(records, settings=self.warehouse.settings, now=self.warehouse.now())
            self._save(records, cursor)
        return None

    def _restart_unordered(self) -> None:
        """The listing is not in byte order: nothing it did not show may be called missing. Start again, marking what is seen."""
        cursor = self.cursor.model_copy(
            update={"phase": Phase.SWEEP, "unordered": True, "counters": Counters(), **_from_the_start(self.cursor)}
        )
        with self.warehouse.catalog.transaction() as records:
            records.syncs.forget_missing(self.sync.sync_id)
            self._save(records, cursor)

    def _register(
        self, records: Records, fresh: Iterable[tuple[Entry, tuple[object, ...] | None]], *, unchanged: Sequence[Entry]
    ) -> Counters:
        """Record what a page changed; `fresh` are entries that differ from what is registered, with that."""
        full = self.cursor.full
        if self.drifted or full:  # the filters or the mapping changed, or somebody wants every file to be looked at again
            known = records.syncs.keys_named(self.sync.sync_id, [entry.key for entry in unchanged])
            fresh = [(entry, known.get(entry.key)) for entry in unchanged]
        now = self.warehouse.now()
        taken = self.intake.take(records, fresh, generation=self.cursor.generation, drifted=self.drifted, full=full, now=now)
        if taken.drifted_out:
            remove_objects(records, self.warehouse.index, taken.drifted_out, now=now)
        counters = self.cursor.counters.plus(
            listed=len(unchanged),
            new=taken.new,
            changed=taken.changed,
            skipped=taken.skipped,
            failed=taken.failed,
            deleted=len(taken.drifted_out),
            unchanged=len(unchanged) - taken.new - taken.changed - taken.skipped - taken.failed,
            bytes=sum(entry.size for entry in unchanged) - taken.skipped_bytes,
            pages=1,
            seconds=self._lap(),
        )
        self.intake.fill_batches(records, taken.object_ids, settings=self.warehouse.settings, cursor=self.cursor, now=now)
        return counters

    # Deletes

    def _confirm_missing(self) -> None:
        """Ask for every missing key by name, a few hundred at a time; only what the provider says is gone loses its object."""
        sync_id = self.sync.sync_id
        with self.warehouse.catalog.reading() as records:
            counts = records.syncs.count_keys(sync_id)
            missing = records.syncs.missing(sync_id, limit=500)
        if not missing or not self.sync.spec.reconcile.on_delete:
            return self._end(held=0)
        held = self._held(counts)
        if held and not self.cursor.confirmed_deletes:
            return self._end(held=held)
        with ThreadPoolExecutor(_HEADS) as pool:
            heads = list(pool.map(lambda key: self.source.head(key.key), missing))
        gone = [key for key, head in zip(missing, heads) if head is None]
        back = [key.key for key, head in zip(missing, heads) if head is not None]
        with self.warehouse.catalog.transaction() as records:
            now = self.warehouse.now()
            remove_objects(records, self.warehouse.index, [key.object_id for key in gone if key.object_id], now=now)
            records.syncs.remove_keys(sync_id, [key.key for key in gone])
            records.syncs.found_again(sync_id, back)
            counters = self.cursor.counters.plus(deleted=len(gone), seconds=self._lap())
            # Confirmed once means confirmed for all of this pass: the share shrinks while we delete.
            self._save(records, self.cursor.model_copy(update={"counters": counters, "confirmed_deletes": True}))
        finish_removals(self.warehouse)
        return None

    def _held(self, counts: dict[KeyState, int]) -> int:
        """How many deletes are too many to believe: more than 100 and the allowed share, or everything there was."""
        missing, registered = counts.get(KeyState.MISSING, 0), sum(counts.values())
        vanished = self.cursor.counters.listed == 0 and missing > 0
        many = missing > max(_SURE_DELETES, self.sync.spec.max_deleted_ratio * registered)
        return missing if vanished or many else 0

    # Ends

    def _end(self, *, held: int) -> None:
        spec, now = self.sync.spec, self.warehouse.now()
        counters = self.cursor.counters.plus(held=held, seconds=self._lap())
        cursor = SyncCursor(generation=self.cursor.generation, config_hash=self.config_hash, unordered=self.cursor.unordered)
        # A pass costs money and load: poll no more often than twenty times its own length.
        wait_s = max(float(spec.polling_interval_seconds), min(20 * counters.seconds, 3600.0))
        done = spec.sync_mode is SyncMode.INITIAL_ONLY
        error = None
        if held:
            error = (
                f"{held} files are missing from {self.source.uri}, too many to be believed: nothing was deleted. If they are "
                f"really gone, run `mixpeek-dagster syncs confirm {self.sync.sync_id}`."
            )
        with self.warehouse.catalog.transaction() as records:
            if self.cursor.job_id:
                records.syncs.save_job(self.cursor.job_id, status="completed", counters=counters, now=now, error=error)
            self._save(
                records,
                cursor,
                passes=self.sync.passes + 1,
                consecutive_failures=0,
                last_pass_at=now,
                last_counters=counters.model_dump(),
                last_error=error,
                next_pass_at=None if done else self.warehouse.now(plus_s=wait_s),
            )
            records.syncs.settle_status(self.sync.sync_id, SyncStatus.COMPLETED if done else SyncStatus.ACTIVE)
            self.sync = self.sync.model_copy(update={"last_counters": counters, "last_error": error})

    def _save(self, records: Records, cursor: SyncCursor, **values: object) -> None:
        """Record the cursor, and prolong the lock: whoever works is alive."""
        until = self.warehouse.now(plus_s=LOCK_S)
        records.syncs.save(
            self.sync.sync_id, owner=self.warehouse.owner, cursor=cursor.model_dump(mode="json"), lock_expires_at=until, **values
        )
        self.cursor = cursor

    def _lap(self) -> float:
        started, self.started = self.started, time.perf_counter()
        return self.started - started


def _ascends(entries: Sequence[Entry], after: bytes | None) -> bool:
    previous = after
    for entry in entries:
        if previous is not None and entry.key <= previous:
            return False
        previous = entry.key
    return True


def _merge(
    entries: Sequence[Entry], rows: Sequence[tuple[object, ...]]
) -> tuple[list[tuple[Entry, tuple[object, ...] | None]], list[bytes]]:
    """Compare a sorted page with the sorted keys registered in the same range: what is new or differs, and what is missing.

    Both start with (key, size, etag, version); a registered row goes on with its state.
    """
    if len(entries) == len(rows) and all(entry[:4] == row[:4] and row[4] == 0 for entry, row in zip(entries, rows)):
        return [], []
    registered = {row[0]: row for row in rows}
    fresh = []
    for entry in entries:
        row = registered.pop(entry.key, None)
        if row is None or entry[:4] != row[:4] or row[4] != KeyState.LIVE:
            fresh.append((entry, row))
    missing = [key for key, row in registered.items() if row[4] != KeyState.MISSING]
    return fresh, missing  # type: ignore[return-value]


def _without_token(cursor: SyncCursor, source: ObjectSource) -> SyncCursor:
    """Where to go on when the provider does not take its token back: behind the last key where it can, else from the start."""
    if cursor.token is None:
        return cursor
    again = cursor.unordered or not source.capabilities.start_after
    return cursor.model_copy(update=_from_the_start(cursor) if again else {"token": None, "landmark": None})


def _from_the_start(cursor: SyncCursor) -> dict[str, object]:
    """List again under a new generation, so that what was seen before counts as not seen."""
    return {"token": None, "after": None, "generation": cursor.generation + 1, "idle_pages": 0, "landmark": None}


def _record_failure(warehouse: Warehouse, sync_id: SyncId, error: MixpeekError) -> Progress:
    with warehouse.catalog.transaction() as records:
        sync = records.syncs.get(sync_id)
        cursor = _without_token(sync.cursor, warehouse.source(sync)) if isinstance(error, BadListing) else sync.cursor
        failures = sync.consecutive_failures + 1
        wait_s = min(5.0 * 2 ** min(failures, 16), max(float(sync.spec.polling_interval_seconds), 300.0))
        records.syncs.save(
            sync_id,
            owner=warehouse.owner,
            cursor=cursor.model_dump(mode="json"),
            consecutive_failures=failures,
            last_error=error.message[:1000],
            next_pass_at=warehouse.now(plus_s=wait_s),
            triggered_at=None,
        )
        if sync.cursor.job_id:
            records.syncs.save_job(
                sync.cursor.job_id,
                status="failed",
                counters=sync.cursor.counters,
                now=warehouse.now(),
                error=error.message[:1000],
            )
        return Progress(records.syncs.get(sync_id), sync.cursor.counters, finished=False, error=error.message)
