"""Follow one source: list a page, merge it with the registered keys, record the difference in one transaction; repeat.

A pass never trusts modification times, listing order, or one missing page: unchanged keys cost a comparison, changed ones become
objects and batch items in the transaction that moves the cursor, and a key that was not listed is asked for by name before its object
goes. A pass may stop after any page and go on later, in another process.
"""

import logging
import time
from dataclasses import dataclass

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listed_pages import ListedPage
from mixpeek_dagster.catalog.syncs import KeyState, LockLost
from mixpeek_dagster.errors import BadListing, CatalogError, MixpeekError, NotFound, ProviderDown, words_of
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.ids import SyncId, SyncJobId, new_id
from mixpeek_dagster.models.objects import ObjectStatus
from mixpeek_dagster.models.syncs import Counters, Phase, Sync, SyncCursor, SyncMode, SyncStatus
from mixpeek_dagster.pipeline.intake import Intake
from mixpeek_dagster.pipeline.known_pages import known_page, passed_over, remember_page
from mixpeek_dagster.pipeline.merge import (
    ASKED_AT_ONCE,
    TRIED_AGAIN,
    ask_for,
    compare,
    config_hash,
    deleted_upto,
    doomed_states,
    first_cursor,
    from_the_start,
    held_deletes,
    is_full,
    moved_on,
    read_page,
    refusal_of,
    registered,
    room_of,
    unordered_cursor,
)
from mixpeek_dagster.pipeline.removal import finish_removals
from mixpeek_dagster.pipeline.sharing import let_go
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.provider import Entry, ObjectSource, Page

LOCK_S = 120.0
LONGEST_WAIT_S = 3600.0
"""A provider that asks to be left alone for longer is asked again all the same."""

logger = logging.getLogger("mixpeek_dagster.syncs")


@dataclass(frozen=True)
class Progress:
    """What one call of `advance` did. `finished` is False when the pass goes on in the next call; `error` is why it stopped early, or
    why a finished one had to leave missing files alone."""

    sync: Sync
    counters: Counters
    finished: bool
    error: str | None = None


def advance(warehouse: Warehouse, sync_id: SyncId, *, budget_s: float, force: bool = False) -> Progress | None:
    """Start or continue a pass, for at most about `budget_s` seconds.

    None when there is nothing to do: the pass is not due (and not `force`d), the sync is paused, or another process has its lock; also
    when it was deleted during the call.
    Errors of the provider end the call, are recorded on the sync, and keep the cursor: the next call repeats the failed page. So do
    others that nobody expected; only those of the catalog, which could not be recorded, are raised.
    """
    owner = warehouse.new_holder()
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        records.syncs.hold(sync_id)  # as it is read, it is locked: a pass of another process may be ending
        sync = records.syncs.get(sync_id)
        wanted = force or records.syncs.is_due(sync_id, now=now)
        if not wanted or sync.status is SyncStatus.SUSPENDED:
            return None
        if not records.syncs.lock(sync_id, owner=owner, now=now, until=warehouse.now(plus_s=LOCK_S)):
            return None
        bucket = records.buckets.get(sync.bucket_id, namespace_id=sync.namespace_id)
    try:
        return _Pass(warehouse, sync, bucket, owner).run(deadline=time.monotonic() + budget_s)
    except LockLost:
        return None
    except CatalogError:
        raise  # it could not be recorded
    except Exception as error:
        if not isinstance(error, MixpeekError):
            logger.exception("The pass of sync %s failed in a way that nobody expected.", sync_id)
            error = MixpeekError(f"{words_of(error)[:800]}. This is a defect of mixpeek_dagster: please report it.")
        try:
            return _record_failure(warehouse, sync_id, owner, error)
        except (LockLost, NotFound):
            return None  # there is nothing to record it on any more: the sync was taken over, or deleted, perhaps with its bucket
    finally:
        with warehouse.catalog.transaction() as records:
            records.syncs.unlock(sync_id, owner=owner)


class _Pass:
    """One call's share of a pass. `cursor` is what the catalog holds, moved only in the transaction that does the work."""

    def __init__(self, warehouse: Warehouse, sync: Sync, bucket: Bucket, owner: str) -> None:
        self.warehouse = warehouse
        self.owner = owner
        self.sync = sync
        self.cursor = sync.cursor
        self.is_paused = False
        self.refusal: str | None = None
        self.source: ObjectSource = warehouse.source(sync)
        self.intake = Intake(warehouse, sync, bucket, self.source)
        self.started = time.perf_counter()
        self.pass_hash = config_hash(sync, bucket, place=self.source.uri)

    def run(self, *, deadline: float) -> Progress:
        if self._phase() is Phase.IDLE or self.cursor.pass_hash != self.pass_hash:
            self._begin()
        elif self.cursor.job_id is None:
            self._go_on()
        while self._phase() is not Phase.IDLE:
            if self._phase() is Phase.DELETE:
                self._confirm_missing()
            else:
                self._take_page()
            if is_full(self.cursor, self.sync.spec):
                return self._rest()
            if (self.is_paused or time.monotonic() >= deadline) and self._phase() is not Phase.IDLE:
                return Progress(self.sync, self.cursor.counters, finished=False)
        return Progress(self.sync, self.sync.last_counters or Counters(), finished=True, error=self.refusal)

    def _phase(self) -> Phase:
        return self.cursor.phase

    def _begin(self) -> None:
        """Start a pass; one that was under way with another configuration is given up."""
        with self.warehouse.catalog.transaction() as records:
            asked, now = self._asked(records), self.warehouse.now()
            cursor = first_cursor(asked, self.source, pass_hash=self.pass_hash).model_copy(update={"started_at": now})
            if self.cursor.phase is not Phase.IDLE:
                records.syncs.forget_missing(self.sync.sync_id)
                if self.cursor.job_id is not None:
                    words = "The sync was changed; its pass started again."
                    records.syncs.save_job(
                        self.cursor.job_id, status="failed", counters=self.cursor.counters, now=now, error=words
                    )
            self._start_job(records, asked, cursor, pending_full=False, confirmed_deletes=0)

    def _go_on(self) -> None:
        """Start another run of a pass whose last run had taken as many objects as one may."""
        done = self.cursor.counters
        cursor = self.cursor.model_copy(update={"taken_before": done.new + done.changed})
        with self.warehouse.catalog.transaction() as records:
            asked = self._asked(records)
            self._start_job(records, asked, cursor, is_asked=not (asked.pending_full or asked.confirmed_deletes))

    def _asked(self, records: Records) -> Sync:
        """The sync as it stays while the transaction lasts: a pass may have been asked for since this call began."""
        records.syncs.hold(self.sync.sync_id)
        return records.syncs.get(self.sync.sync_id)

    def _start_job(self, records: Records, asked: Sync, cursor: SyncCursor, *, is_asked: bool = True, **values: object) -> None:
        """Record the run that starts now: the one that somebody asked for, and knows the id of, or a new one. What was asked for waits
        unless `is_asked`: only a pass from its beginning can be it."""
        now, job_id = self.warehouse.now(), records.syncs.queued_job(self.sync.sync_id) if is_asked else None
        if job_id is not None:
            records.syncs.start_job(job_id, now=now)
        else:
            job_id = SyncJobId(new_id("job"))
            trigger = "manual" if is_asked and asked.triggered_at else "scheduled"
            records.syncs.add_job(job_id, self.sync.sync_id, trigger=trigger, now=now)
        # Due from here on until it ends, however it was started.
        cursor = cursor.model_copy(update={"job_id": job_id})
        self._save(records, cursor, next_pass_at=now, triggered_at=None, **values)

    # Listing

    def _take_page(self) -> None:
        with self.warehouse.catalog.reading() as records:
            known = known_page(records, self.sync, self.cursor, self.source)
        page = read_page(self.source, self.cursor, known=known.digest if known else b"")
        if page is None:
            return self._restart_unordered()
        if known is not None and page.digest == known.digest:
            return self._pass_over(known, page)
        before, now = self.cursor, self.warehouse.now()
        with self.warehouse.catalog.transaction() as records:
            records.syncs.take_turn(self.sync.bucket_id)
            rows = registered(records, self.sync, before, page)
            room = room_of(before, self.sync.spec)
            found = compare(records, self.intake, before, page, rows, source=self.source, room=room, now=now)
            is_idle = not found.entries
            if before.phase is Phase.SWEEP:
                first_seen = records.syncs.mark_seen(self.sync.sync_id, found.known, generation=before.generation)
                is_idle = not first_seen and len(found.known) == len(found.entries)
            self.intake.record(records, found.taken, generation=before.generation)
            self.intake.fill_batches(records, found.taken.object_ids, settings=self.warehouse.settings, cursor=before, now=now)
            newly = [row[0] for row in found.absent if row[4] != KeyState.MISSING]
            records.syncs.set_key_state(self.sync.sync_id, newly, KeyState.MISSING)
            newly = [row[0] for row in found.taken.drifted if row[4] != KeyState.DRIFTED]
            records.syncs.set_key_state(self.sync.sync_id, newly, KeyState.DRIFTED)
            remember_page(records, self.sync, before, page, found)
            cursor = moved_on(before, page, found, is_idle=is_idle, seconds=self._lap())
            if cursor.phase is Phase.DELETE:
                if before.phase is Phase.SWEEP:
                    records.syncs.mark_unseen_missing(self.sync.sync_id, generation=before.generation)
                self._close_batches(records, cursor, now=now)
            self._save(records, cursor)
        return None

    def _close_batches(self, records: Records, cursor: SyncCursor, *, now: str) -> None:
        """Everything is listed. Objects whose extraction failed for a reason that may have passed go into a batch once more; none of a
        source that names no file at all."""
        most = TRIED_AGAIN if cursor.counters.listed else 0
        failed, _ = records.objects.failed_of_sync(self.sync.sync_id, dead=False, limit=most)
        again = [stored.object_id for stored in failed]
        records.objects.set_status(again, ObjectStatus.PENDING, now=now)
        self.intake.fill_batches(records, again, settings=self.warehouse.settings, cursor=cursor, now=now)
        self.intake.close_batches(records, settings=self.warehouse.settings, now=now)

    def _pass_over(self, known: ListedPage, page: Page) -> None:
        cursor = passed_over(self.cursor, known, page, seconds=self._lap())
        with self.warehouse.catalog.transaction() as records:
            if cursor.phase is Phase.DELETE:
                self._close_batches(records, cursor, now=self.warehouse.now())
            self._save(records, cursor)

    def _restart_unordered(self) -> None:
        with self.warehouse.catalog.transaction() as records:
            records.syncs.forget_missing(self.sync.sync_id)
            self._save(records, unordered_cursor(self.cursor))

    # Deletes

    def _confirm_missing(self) -> None:
        """Ask for every missing key by name, a hundred at a time; only what the provider says is gone loses its object. What it
        refuses to tell stays missing."""
        sync_id, states = self.sync.sync_id, doomed_states(self.sync.spec)
        with self.warehouse.catalog.reading() as records:
            doomed = records.syncs.doomed(sync_id, states, limit=ASKED_AT_ONCE, after=self.cursor.after_key)
            is_new = bool(doomed) and not self.cursor.deletes_believed
            counts = records.syncs.count_keys(sync_id) if is_new else {}  # reads every key
        missing, registered = sum(counts.get(state, 0) for state in states), sum(counts.values())
        held = held_deletes(self.cursor, self.sync.spec, missing=missing, registered=registered)
        if held or not doomed:
            return self._end(held=held)
        drifted = {key.key for key in doomed if key.state == KeyState.DRIFTED}
        answers = ask_for(self.source, [key.key for key in doomed], drifted=drifted)
        gone = [key for key, answer in zip(doomed, answers) if answer is None]
        back = [key.key for key, answer in zip(doomed, answers) if isinstance(answer, Entry)]
        with self.warehouse.catalog.transaction() as records:
            now = self.warehouse.now()
            records.syncs.take_turn(self.sync.bucket_id)
            lost = {key.key: key.object_id for key in gone if key.object_id}
            let_go(records, self.warehouse, self.sync, lost, gone=set(lost) - drifted, now=now)
            records.syncs.remove_keys(sync_id, [key.key for key in gone])
            records.syncs.found_again(sync_id, back)
            self._save(records, deleted_upto(self.cursor, doomed[-1].key, answers, seconds=self._lap()))
        finish_removals(self.warehouse)
        return None

    # Ends

    def _end(self, *, held: int) -> None:
        spec, now = self.sync.spec, self.warehouse.now()
        counters = self.cursor.counters.plus(held=held, seconds=self._lap())
        cursor = SyncCursor(
            generation=self.cursor.generation,
            config_hash=self.pass_hash,
            unordered=self.cursor.unordered,
            feed_position=self.cursor.feed_position,
        )
        # A pass costs money and load: poll no more often than twenty times its own length.
        wait_s = max(float(spec.polling_interval_seconds), min(20 * counters.seconds, 3600.0))
        done = spec.sync_mode is SyncMode.INITIAL_ONLY
        error = self.refusal = refusal_of(self.cursor)
        if held:
            error = (
                f"{held} files are missing from {self.source.uri} or no longer taken by the sync's filters, too many to be believed: "
                f"nothing was deleted. If their objects shall go, run `mixpeek-dagster syncs confirm {self.sync.sync_id}`."
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
                next_pass_at=self._next_at(records, None if done else wait_s),
            )
            records.syncs.settle_status(self.sync.sync_id, SyncStatus.COMPLETED if done else SyncStatus.ACTIVE)
            self.sync = self.sync.model_copy(update={"last_counters": counters, "last_error": error})

    def _rest(self) -> Progress:
        """The run has taken as many objects as one may: submit them; the next run lists on from here."""
        spec, now, counters = self.sync.spec, self.warehouse.now(), self.cursor.counters
        wait_s = 0 if spec.sync_mode is SyncMode.INITIAL_ONLY else spec.polling_interval_seconds
        with self.warehouse.catalog.transaction() as records:
            self.intake.close_batches(records, settings=self.warehouse.settings, now=now)
            if self.cursor.job_id:
                records.syncs.save_job(self.cursor.job_id, status="completed", counters=counters, now=now)
            cursor = self.cursor.model_copy(update={"job_id": None})
            again = {"consecutive_failures": 0, "last_error": None, "next_pass_at": self._next_at(records, wait_s)}
            self._save(records, cursor, last_counters=counters.model_dump(), **again)
            self.sync = self.sync.model_copy(update={"last_counters": counters, "last_error": None})
        return Progress(self.sync, counters, finished=True)

    def _next_at(self, records: Records, wait_s: float | None) -> str | None:
        """When the next run is due; at once, if somebody asked for one that has not started."""
        if records.syncs.queued_job(self.sync.sync_id) is not None:
            return self.warehouse.now()
        return None if wait_s is None else self.warehouse.now(plus_s=wait_s)

    def _save(self, records: Records, cursor: SyncCursor, **values: object) -> None:
        """Record the cursor, and prolong the lock: whoever works is alive."""
        until = self.warehouse.now(plus_s=LOCK_S)
        status = records.syncs.save(
            self.sync.sync_id, owner=self.owner, cursor=cursor.model_dump(mode="json"), lock_expires_at=until, **values
        )
        self.is_paused = status is SyncStatus.SUSPENDED
        self.cursor = cursor

    def _lap(self) -> float:
        started, self.started = self.started, time.perf_counter()
        return self.started - started


def _without_token(cursor: SyncCursor, source: ObjectSource) -> SyncCursor:
    """Where to go on when the provider does not take its token back: behind the last key where it can, else from the start."""
    if cursor.token is None:
        return cursor
    again = cursor.unordered or not source.capabilities.start_after
    return cursor.model_copy(update=from_the_start(cursor) if again else {"token": None, "landmark": None, "idle_pages": 0})


def _record_failure(warehouse: Warehouse, sync_id: SyncId, owner: str, error: MixpeekError) -> Progress:
    with warehouse.catalog.transaction() as records:
        sync = records.syncs.get(sync_id)
        cursor = _without_token(sync.cursor, warehouse.source(sync)) if isinstance(error, BadListing) else sync.cursor
        failures = sync.consecutive_failures + 1
        wait_s = min(5.0 * 2 ** min(failures, 16), max(float(sync.spec.polling_interval_seconds), 300.0))
        if isinstance(error, ProviderDown) and error.retry_after_s is not None:
            wait_s = max(wait_s, min(error.retry_after_s, LONGEST_WAIT_S))
        records.syncs.save(
            sync_id,
            owner=owner,
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
