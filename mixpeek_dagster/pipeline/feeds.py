"""Follow a provider's change feed: each file that it names is asked for at the source and merged as a pass would merge it.

Feeds are accelerators. They are followed between passes only, under the sync's lock; what they miss, the next pass finds, also
what became of a file that may not be asked for. More deletes than a pass would believe are left to one, which is due at once then, and
asks. News are acknowledged after the transaction that records what they led to: a crash makes them come again, which changes nothing.
"""

import logging
import time
from dataclasses import dataclass, field
from typing import cast

from mixpeek_dagster.catalog.syncs import LockLost
from mixpeek_dagster.errors import AccessDenied, MixpeekError, Transient, WrongState, words_of
from mixpeek_dagster.models.batches import Batch
from mixpeek_dagster.models.ids import SyncId
from mixpeek_dagster.models.syncs import Counters, Phase, Sync, SyncStatus
from mixpeek_dagster.pipeline.intake import Intake
from mixpeek_dagster.pipeline.merge import ask_for, believed_deletes, compare, config_hash
from mixpeek_dagster.pipeline.removal import finish_removals
from mixpeek_dagster.pipeline.sharing import let_go
from mixpeek_dagster.pipeline.syncs import LOCK_S
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.feed import FeedSource, News
from mixpeek_dagster.storage.provider import Entry, Page

logger = logging.getLogger("mixpeek_dagster.feeds")


class NotNow(WrongState, Transient):
    """A pass is under way, has to come first, or another process has the sync: the news have to come again."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """How far a run is believed that could not read files.

    Attributes:
        most_deletes: if more of them are gone, or the source names no file at all, none is deleted: that is left to a pass.
        again: how many batches in a row were made in this way; the one that follows bears the number.
        batch: what the run was about. A file that is there as it was listed, after all, goes into another batch, if a later one has not
            got it.
    """

    most_deletes: int
    again: int
    batch: Batch


@dataclass(frozen=True)
class Looked:
    """What became of the files that were looked at; the keys that are `settled`, of one piece of news, are in a batch or gone by now, or
    are none of the sync's."""

    messages: int = 0
    new: int = 0
    changed: int = 0
    deleted: int = 0
    settled: frozenset[bytes] = field(default=frozenset(), compare=False)

    def __add__(self, other: "Looked") -> "Looked":
        mine, its = vars(self), vars(other)
        return Looked(**{name: mine[name] + its[name] for name in mine if name != "settled"})


def follow(warehouse: Warehouse, sync_id: SyncId, *, budget_s: float) -> Looked:
    """Take what the sync's feed has to tell, until it has nothing more or the time is over.

    Raises:
        NotNow: see there; nothing was acknowledged. Failures of the provider, also between two pieces of news.
    """
    with warehouse.catalog.reading() as records:
        sync = records.syncs.get(sync_id)
    source = warehouse.source(sync)
    done = Looked()
    if not source.capabilities.feed or not is_followable(sync):
        return done
    feed, position = cast(FeedSource, source), sync.cursor.feed_position
    deadline = time.monotonic() + budget_s
    while True:
        news = feed.news(position)
        moved = news.position is not None and news.position != position
        if news.messages or moved:
            done += look_at(warehouse, sync_id, news)
            feed.acknowledge(news)
            position = news.position
        if not news.messages or time.monotonic() >= deadline:
            return done


def is_followable(sync: Sync, *, when_done: bool = False) -> bool:
    """Whether the sync's feed may be followed now: it has made a pass, is between two, and is neither paused nor (`when_done` aside)
    done."""
    is_up = sync.status is SyncStatus.ACTIVE or (when_done and sync.status is SyncStatus.COMPLETED)
    return is_up and sync.passes > 0 and sync.cursor.phase is Phase.IDLE


def look_at(warehouse: Warehouse, sync_id: SyncId, news: News, *, doubt: Doubt | None = None) -> Looked:
    """Ask the source for the files of one piece of news, and record what they are now.

    Args:
        doubt: no feed told of the files: a run could not read them.

    Raises:
        NotNow: it has to be done later. Failures of the provider; nothing was recorded then.
    """
    owner = warehouse.new_holder()
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        if not records.syncs.lock(sync_id, owner=owner, now=now, until=warehouse.now(plus_s=LOCK_S)):
            raise NotNow(f"Sync {sync_id} is locked by another process; try again.")
    try:
        return _look(warehouse, sync_id, owner, news, doubt)
    except LockLost as error:
        raise NotNow(str(error)) from error
    finally:
        with warehouse.catalog.transaction() as records:
            records.syncs.unlock(sync_id, owner=owner)


def _look(warehouse: Warehouse, sync_id: SyncId, owner: str, news: News, doubt: Doubt | None) -> Looked:
    with warehouse.catalog.reading() as records:
        sync = records.syncs.get(sync_id)
        bucket = records.buckets.get(sync.bucket_id, namespace_id=sync.namespace_id)
        named = {
            bytes(row[0]) for prefix in news.prefixes for row in records.syncs.keys_between(sync_id, prefix, prefix + b"\xff")
        }
    source = warehouse.source(sync)
    pass_hash = config_hash(sync, bucket, place=source.uri)
    if not is_followable(sync, when_done=doubt is not None) or sync.cursor.config_hash != pass_hash:
        raise NotNow(f"Sync {sync_id} makes a pass first; try again.")
    keys = sorted(named.union(news.keys))
    answers = ask_for(source, keys)
    there = [answer for answer in answers if isinstance(answer, Entry)]
    gone = [key for key, answer in zip(keys, answers) if answer is None]
    refused = [answer for answer in answers if isinstance(answer, AccessDenied)]
    if doubt is not None and refused:
        raise refused[0]
    if doubt is not None and gone and not source.list_page(limit=1).entries:
        gone = []  # an unmounted or emptied folder looks like this: a pass asks before it deletes
    intake = Intake(warehouse, sync, bucket, source, again=doubt.again if doubt is not None else 0)
    cursor = sync.cursor.model_copy(update={"generation": sync.cursor.generation + 1, "pass_hash": pass_hash})
    position = sync.cursor.feed_position if doubt is not None else news.position
    with warehouse.catalog.transaction() as records:
        now = warehouse.now()
        records.syncs.take_turn(sync.bucket_id)
        rows = {key: row[:6] for key, row in records.syncs.keys_named(sync_id, keys).items()}
        present = {entry.key: rows[entry.key] for entry in there if entry.key in rows}
        found = compare(records, intake, cursor, Page(there, None), present, source=source, room=0, now=now)
        intake.record(records, found.taken, generation=cursor.generation)
        doomed = [rows[key] for key in gone if key in rows] if sync.spec.reconcile.on_delete else []
        doomed += found.taken.drifted
        is_too_many = len(doomed) > _believed(sync, doubt)
        doomed = [] if is_too_many else doomed
        lost = {row[0]: str(row[5]) for row in doomed if row[5]}
        let_go(records, warehouse, sync, lost, gone=set(gone), now=now)
        records.syncs.remove_keys(sync_id, [row[0] for row in doomed])
        decided = {*(key.key for key in found.taken.keys), *found.taken.gone_keys}
        unread = decided.union(row[0] for row in found.taken.drifted)
        readable = {key: row[5] for key, row in present.items() if row[5] and key not in unread} if doubt is not None else {}
        later = records.objects.taken_later(readable.values(), doubt.batch) if doubt is not None else set()
        again = [object_id for object_id in readable.values() if object_id not in later]
        waiting = [*found.taken.object_ids, *again]
        intake.fill_batches(records, waiting, settings=warehouse.settings, cursor=cursor, now=now)
        intake.close_batches(records, settings=warehouse.settings, now=now)
        after = cursor.model_copy(update={"feed_position": position, "pass_hash": sync.cursor.pass_hash})
        due: dict[str, str] = {}
        if doubt is None:
            after = after.model_copy(update={"feed_deleted": cursor.feed_deleted + len(doomed)})
            due = {"triggered_at": now} if news.everything or (is_too_many and not _is_holding(sync)) else {}
        records.syncs.save(sync_id, owner=owner, cursor=after.model_dump(mode="json"), **due)
    finish_removals(warehouse)
    settled = frozenset(decided.union(readable, (row[0] for row in doomed)))
    return Looked(news.messages, found.taken.new, found.taken.changed, len(doomed), settled)


def _is_holding(sync: Sync) -> bool:
    """Whether the last pass held deletes back, and waits for somebody to confirm them."""
    return sync.last_counters is not None and sync.last_counters.held > 0


def _believed(sync: Sync, doubt: Doubt | None) -> int:
    """How many deletes may be made without a pass: of what feeds tell as many as a pass would believe, over all news since the last."""
    if _is_holding(sync):
        return 0
    if doubt is not None:
        return doubt.most_deletes
    last = sync.last_counters or Counters()
    return believed_deletes(sync.spec, registered=last.listed - last.skipped) - sync.cursor.feed_deleted


def follow_all(warehouse: Warehouse, *, budget_s: float) -> dict[SyncId, Looked | MixpeekError]:
    """Follow the feed of every sync that has one; what each led to, or why it failed."""
    deadline = time.monotonic() + budget_s
    with warehouse.catalog.reading() as records:
        syncs = [sync for sync in records.syncs.all() if is_followable(sync)]
    done: dict[SyncId, Looked | MixpeekError] = {}
    for sync in syncs:
        try:
            if warehouse.source(sync).capabilities.feed:
                done[sync.sync_id] = follow(warehouse, sync.sync_id, budget_s=max(deadline - time.monotonic(), 0.0))
        except NotNow:
            continue
        except MixpeekError as error:
            done[sync.sync_id] = error
        except Exception as error:  # the other feeds are followed all the same
            logger.exception("The feed of sync %s failed.", sync.sync_id)
            done[sync.sync_id] = MixpeekError(words_of(error))
    return done
