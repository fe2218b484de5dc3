"""Look at some files of a sync between its passes: each is asked for at the source, and recorded as a pass would record it.

A feed has named them (`feeds`), or a run could not read them (`second_looks`). Both are believed only so far: more deletes than a pass
would make without asking are left to one.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.syncs import LockLost
from mixpeek_dagster.errors import Transient, WrongState
from mixpeek_dagster.models.batches import Batch
from mixpeek_dagster.models.ids import ObjectId, SyncId
from mixpeek_dagster.models.syncs import Counters, Phase, Sync, SyncCursor, SyncStatus
from mixpeek_dagster.pipeline.intake import Intake, Row, Taken
from mixpeek_dagster.pipeline.merge import SURE_DELETES, ask_for, believed_deletes, compare, config_hash
from mixpeek_dagster.pipeline.removal import finish_removals
from mixpeek_dagster.pipeline.sharing import let_go
from mixpeek_dagster.pipeline.syncs import LOCK_S
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.feed import News
from mixpeek_dagster.storage.provider import Entry, Page


class NotNow(WrongState, Transient):
    """A pass is under way, has to come first, or another process has the sync: the news have to come again."""


@dataclass(frozen=True, kw_only=True)
class Doubt:
    """What a run says that could not read files. If the source names no file at all, none is deleted: that is left to a pass.

    Attributes:
        again: how many batches in a row were made in this way; the one that follows bears the number.
        batch: what the run was about. A file that is there as it was listed, after all, goes into another batch, if a later one has not
            got it.
    """

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
        return _Look(warehouse, sync_id, owner, news, doubt).run()
    except LockLost as error:
        raise NotNow(str(error)) from error
    finally:
        with warehouse.catalog.transaction() as records:
            records.syncs.unlock(sync_id, owner=owner)


class _Look:
    """One look, under the sync's lock. `keys` are those that were named, and those registered below a named prefix."""

    def __init__(self, warehouse: Warehouse, sync_id: SyncId, owner: str, news: News, doubt: Doubt | None) -> None:
        self.warehouse, self.owner, self.news, self.doubt = warehouse, owner, news, doubt
        with warehouse.catalog.reading() as records:
            self.sync = records.syncs.get(sync_id)
            bucket = records.buckets.get(self.sync.bucket_id, namespace_id=self.sync.namespace_id)
            ranges = [records.syncs.keys_between(sync_id, prefix, prefix + b"\xff") for prefix in news.prefixes]
        self.keys = sorted({bytes(row[0]) for rows in ranges for row in rows}.union(news.keys))
        self.source = warehouse.source(self.sync)
        self.pass_hash = config_hash(self.sync, bucket, place=self.source.uri)
        if not is_followable(self.sync, when_done=doubt is not None) or self.sync.cursor.config_hash != self.pass_hash:
            raise NotNow(f"Sync {sync_id} makes a pass first; try again.")
        self.intake = Intake(warehouse, self.sync, bucket, self.source, again=doubt.again if doubt is not None else 0)

    def run(self) -> Looked:
        there, gone = self._ask()
        sync, before = self.sync, self.sync.cursor
        cursor = before.model_copy(update={"generation": before.generation + 1, "pass_hash": self.pass_hash})
        with self.warehouse.catalog.transaction() as records:
            now, settings = self.warehouse.now(), self.warehouse.settings
            records.syncs.take_turn(sync.bucket_id)
            rows = {key: row[:6] for key, row in records.syncs.keys_named(sync.sync_id, self.keys).items()}
            present = {entry.key: rows[entry.key] for entry in there if entry.key in rows}
            page = Page(there, None)
            taken = compare(records, self.intake, cursor, page, present, source=self.source, room=0, now=now).taken
            self.intake.record(records, taken, generation=cursor.generation)
            doomed = [*(rows[key] for key in gone if key in rows and sync.spec.reconcile.on_delete), *taken.drifted]
            is_too_many = len(doomed) > self._believed()
            doomed = [] if is_too_many else doomed
            lost = {row[0]: str(row[5]) for row in doomed if row[5]}
            let_go(records, self.warehouse, sync, lost, gone=set(gone), now=now)
            records.syncs.remove_keys(sync.sync_id, [row[0] for row in doomed])
            decided = {*(key.key for key in taken.keys), *taken.gone_keys}
            unread = self._unread(present, taken, decided)
            self.intake.fill_batches(
                records, [*taken.object_ids, *self._again(records, unread)], settings=settings, cursor=cursor, now=now
            )
            self.intake.close_batches(records, settings=settings, now=now)
            self._save(records, cursor, deleted=len(doomed), is_too_many=is_too_many, now=now)
        finish_removals(self.warehouse)
        settled = frozenset(decided.union(unread, (row[0] for row in doomed), set(self.keys) - rows.keys()))
        return Looked(self.news.messages, taken.new, taken.changed, len(doomed), settled)

    def _ask(self) -> tuple[list[Entry], list[bytes]]:
        """The files that are there, and the keys of those that are gone. What may not be asked for is left to a pass."""
        answers = ask_for(self.source, self.keys)
        there = [answer for answer in answers if isinstance(answer, Entry)]
        gone = [key for key, answer in zip(self.keys, answers) if answer is None]
        if self.doubt is not None and gone and not self.source.list_page(limit=1).entries:
            gone = []  # an unmounted or emptied folder looks like this: a pass asks before it deletes
        return there, gone

    def _believed(self) -> int:
        """How many deletes may be made without a pass: all since the last one are fewer than it would believe, and a run is believed
        only as far as a small source."""
        if self._is_holding():
            return 0
        last = self.sync.last_counters or Counters()
        most = believed_deletes(self.sync.spec, registered=last.listed - last.skipped) if self.doubt is None else SURE_DELETES
        return max(0, most - self.sync.cursor.feed_deleted)

    def _is_holding(self) -> bool:
        """Whether the last pass held deletes back, and waits for somebody to confirm them."""
        return self.sync.last_counters is not None and self.sync.last_counters.held > 0

    def _unread(self, present: Mapping[bytes, Row], taken: Taken, decided: Container[bytes]) -> dict[bytes, ObjectId]:
        """Key → object of the files that a run could not read, and that are as they were listed after all."""
        if self.doubt is None:
            return {}
        drifted = {row[0] for row in taken.drifted}
        return {key: row[5] for key, row in present.items() if row[5] and key not in decided and key not in drifted}

    def _again(self, records: Records, unread: Mapping[bytes, ObjectId]) -> list[ObjectId]:
        """Those of the objects that no later batch has got anyway."""
        later = records.objects.taken_later(unread.values(), self.doubt.batch) if self.doubt is not None else set()
        return [object_id for object_id in unread.values() if object_id not in later]

    def _save(self, records: Records, cursor: SyncCursor, *, deleted: int, is_too_many: bool, now: str) -> None:
        told: dict[str, object] = {"pass_hash": self.sync.cursor.pass_hash, "feed_deleted": cursor.feed_deleted + deleted}
        due: dict[str, str] = {}
        if self.doubt is None:
            told["feed_position"] = self.news.position
            due = {"triggered_at": now} if self.news.everything or (is_too_many and not self._is_holding()) else {}
        after = cursor.model_copy(update=told)
        records.syncs.save(self.sync.sync_id, owner=self.owner, cursor=after.model_dump(mode="json"), **due)
