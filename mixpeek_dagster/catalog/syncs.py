"""Records of syncs, and of the keys each sync has registered.

A sync's row is written only by the holder of its lock; a write by anybody else changes no row and raises `LockLost`.
"""

from collections.abc import Iterable, Sequence
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection as Database
from sqlalchemy import Row, and_, case, delete, func, insert, literal, or_, select, text, update

from mixpeek_dagster.catalog import request_tables, tables
from mixpeek_dagster.catalog.connections import ConnectionRecords
from mixpeek_dagster.catalog.listed_pages import ListedPageRecords
from mixpeek_dagster.catalog.rows import chunks, hold, page
from mixpeek_dagster.catalog.shared_keys import SharedKeyRecords
from mixpeek_dagster.errors import NotFound, Transient
from mixpeek_dagster.models.ids import BucketId, NamespaceId, SyncId, SyncJobId
from mixpeek_dagster.models.syncs import REQUEUED, Counters, Sync, SyncStatus

_syncs, _keys, _jobs = tables.syncs, tables.source_keys, tables.sync_jobs
_dead_letters = request_tables.dead_letters


class KeyState(IntEnum):
    """LIVE has an object; MISSING was not listed and waits to be confirmed gone; REJECTED does not fit the bucket; ARCHIVED cannot be
    read; DRIFTED is listed and not taken any more. A REJECTED or ARCHIVED key may still have the object of an earlier revision, which
    goes when the file goes."""

    LIVE = 0
    MISSING = 1
    REJECTED = 2
    ARCHIVED = 3
    DRIFTED = 4


DOOMED = frozenset({KeyState.MISSING, KeyState.DRIFTED})
"""Keys that the end of a pass takes away with their objects, if it believes them."""

ARCHIVED_WORDS = "stored as "
"""How the error of an ARCHIVED key begins."""


class SourceKey(NamedTuple):
    """One registered key. The first four fields are what a listing is compared with."""

    key: bytes
    size: int
    etag: str
    version: str
    state: int
    object_id: str | None
    modified_at: float = 0.0
    error: str | None = None
    retries: int = 0


JobRow = Row[Any]  # one pass as recorded: the columns of `sync_jobs`


class LockLost(Transient):
    """Another process has taken the sync over; nothing of this step was recorded."""


class SyncRecords(ConnectionRecords):
    def __init__(self, connection: Database) -> None:
        super().__init__(connection)
        self._pages = ListedPageRecords(connection)  # whatever writes keys forgets the pages they are in

    # Syncs

    def add(self, sync: Sync) -> None:
        self._connection.execute(insert(_syncs), sync.model_dump(mode="json"))

    def hold(self, sync_id: SyncId) -> None:
        """Keep other transactions from changing it until this one ends."""
        hold(self._connection, _syncs.c.sync_id, sync_id)

    def take_turn(self, bucket_id: BucketId) -> None:
        """Keep the bucket's other syncs from registering files until this transaction ends: they may be the same files."""
        oldest = select(_syncs.c.sync_id).where(_syncs.c.bucket_id == bucket_id).order_by(_syncs.c.created_at, _syncs.c.sync_id)
        while (first := self._connection.execute(oldest.limit(1)).scalar()) is not None:
            self.hold(first)
            if self._connection.execute(oldest.limit(1)).scalar() == first:
                return

    def get(self, sync_id: str, *, namespace_id: NamespaceId | None = None, bucket_id: BucketId | None = None) -> Sync:
        """By id.

        Raises:
            NotFound: there is none in that scope.
        """
        query = select(_syncs).where(_syncs.c.sync_id == sync_id)
        if namespace_id is not None:
            query = query.where(_syncs.c.namespace_id == namespace_id)
        if bucket_id is not None:
            query = query.where(_syncs.c.bucket_id == bucket_id)
        row = self._connection.execute(query).first()
        if row is None:
            raise NotFound(f"No sync {sync_id!r}.")
        return _value(row)

    def all(self, bucket_id: BucketId | None = None) -> list[Sync]:
        query = select(_syncs).order_by(_syncs.c.created_at, _syncs.c.sync_id)
        if bucket_id is not None:
            query = query.where(_syncs.c.bucket_id == bucket_id)
        return [_value(row) for row in self._connection.execute(query)]

    def is_due(self, sync_id: SyncId, *, now: str) -> bool:
        """Whether a pass should start or go on now; one indexed row, for a sensor that asks often."""
        return (
            self._connection.execute(select(_syncs.c.sync_id).where(_syncs.c.sync_id == sync_id, _due(now))).first() is not None
        )

    def due(self, *, now: str) -> list[Sync]:
        return [_value(row) for row in self._connection.execute(select(_syncs).where(_due(now)))]

    def set(self, sync_id: SyncId, *, now: str, **values: Any) -> None:
        """Change what a user may change: spec, status, trigger, confirmation."""
        self._connection.execute(update(_syncs).where(_syncs.c.sync_id == sync_id).values(updated_at=now, **values))

    def lock(self, sync_id: SyncId, *, owner: str, now: str, until: str) -> bool:
        """Take the lock; False when anybody holds it, `owner`'s other threads included."""
        free = or_(_syncs.c.locked_by.is_(None), _syncs.c.lock_expires_at < now)
        done = self._connection.execute(
            update(_syncs).where(_syncs.c.sync_id == sync_id, free).values(locked_by=owner, lock_expires_at=until)
        )
        return done.rowcount == 1

    def save(self, sync_id: SyncId, *, owner: str, **values: Any) -> SyncStatus:
        """Write the state of a pass, as its lock's holder; the sync's status, which somebody may have changed meanwhile.

        Raises:
            LockLost: the lock is not `owner`'s any more.
        """
        mine = update(_syncs).where(_syncs.c.sync_id == sync_id, _syncs.c.locked_by == owner)
        row = self._connection.execute(mine.values(**values).returning(_syncs.c.status)).first()
        if row is None:
            raise LockLost(f"Sync {sync_id} was taken over by another process; this step was not recorded.")
        return SyncStatus(row.status)

    def settle_status(self, sync_id: SyncId, status: SyncStatus) -> None:
        """Record what a pass made of the sync, unless it was paused meanwhile."""
        free = and_(_syncs.c.sync_id == sync_id, _syncs.c.status != SyncStatus.SUSPENDED)
        self._connection.execute(update(_syncs).where(free).values(status=status))

    def unlock(self, sync_id: SyncId, *, owner: str | None = None) -> None:
        """Give the lock back; without an owner, break it."""
        where = [_syncs.c.sync_id == sync_id] + ([_syncs.c.locked_by == owner] if owner else [])
        self._connection.execute(update(_syncs).where(*where).values(locked_by=None, lock_expires_at=None))

    def remove(self, sync_id: SyncId, *, keeps_keys: bool = False) -> None:
        if not keeps_keys:
            self._connection.execute(delete(_keys).where(_keys.c.sync_id == sync_id))
        self._pages.forget(sync_id)
        self._connection.execute(delete(_syncs).where(_syncs.c.sync_id == sync_id))

    def remove_of_bucket(self, bucket_id: BucketId) -> None:
        """Delete a bucket's syncs, with the connections that were made for them alone."""
        for sync in self.all(bucket_id):
            self.remove(sync.sync_id)
            self.remove_unnamed_connection(sync.connection_id)
        SharedKeyRecords(self._connection).forget_bucket(bucket_id)

    # Passes

    def add_job(self, job_id: SyncJobId, sync_id: SyncId, *, trigger: str, now: str, queued: bool = False) -> None:
        """A pass that starts now or, `queued`, when its turn comes: such a job has no `started_at`."""
        row = {"sync_job_id": job_id, "sync_id": sync_id, "status": "running", "trigger": trigger, "counters": {}}
        self._connection.execute(insert(_jobs), row | {"started_at": None if queued else now, "updated_at": now})

    def queued_job(self, sync_id: SyncId) -> SyncJobId | None:
        """The job that waits for its pass, if one was asked for."""
        waiting = (_jobs.c.sync_id == sync_id, _jobs.c.started_at.is_(None), _jobs.c.status == "running")
        row = self._connection.execute(select(_jobs.c.sync_job_id).where(*waiting)).first()
        return SyncJobId(row[0]) if row else None

    def start_job(self, job_id: SyncJobId, *, now: str) -> None:
        started = update(_jobs).where(_jobs.c.sync_job_id == job_id).values(started_at=now, updated_at=now)
        self._connection.execute(started)

    def save_job(self, job_id: SyncJobId, *, status: str, counters: Counters, now: str, error: str | None = None) -> None:
        done = {"completed_at": now} if status != "running" else {}
        values = {"status": status, "counters": counters.model_dump(), "updated_at": now, "error": error, **done}
        self._connection.execute(update(_jobs).where(_jobs.c.sync_job_id == job_id).values(values))

    def jobs(
        self, sync_id: SyncId, *, status: str | None = None, limit: int = 100, offset: int = 0
    ) -> tuple[Sequence[Row[Any]], int]:
        """Passes, newest first."""
        query = select(_jobs).where(_jobs.c.sync_id == sync_id)
        if status is not None:
            query = query.where(_jobs.c.status == status)
        order = [_jobs.c.started_at.desc().nulls_first(), _jobs.c.sync_job_id]
        return page(self._connection, query, order=order, limit=limit, offset=offset)

    def job(self, sync_id: SyncId, job_id: str) -> Row[Any]:
        """Raises NotFound when the sync has no such pass."""
        row = self._connection.execute(select(_jobs).where(_jobs.c.sync_id == sync_id, _jobs.c.sync_job_id == job_id)).first()
        if row is None:
            raise NotFound(f"No job {job_id!r} of sync {sync_id}.")
        return row

    def prune_jobs(self, *, before: str, limit: int) -> int:
        """Forget passes that began before a time and have ended, at most `limit`; how many."""
        of_syncs = _jobs.c.sync_id.in_(select(_syncs.c.sync_id))  # all of them: each is one range of the index
        ended = (_jobs.c.started_at < before, _jobs.c.completed_at.is_not(None))
        old = select(_jobs.c.sync_job_id).where(of_syncs, *ended).limit(limit)
        return self._connection.execute(delete(_jobs).where(_jobs.c.sync_job_id.in_(old))).rowcount

    # Dead letters: keys that cannot become objects as they are

    def dead_letters(
        self, sync_id: SyncId, states: Sequence[KeyState], *, limit: int = 1000, offset: int = 0
    ) -> tuple[list[SourceKey], int]:
        """Keys with an error that nobody has given up on, in byte order, and how many there are. Their `retries` are how often
        they were requeued since they last had none.
        """
        query = select(_keys).where(*_dead(sync_id, states))
        rows, total = page(self._connection, query, order=[_keys.c.key], limit=limit, offset=offset)
        return [_key(row) for row in rows], total

    def requeue(self, sync_id: SyncId, states: Sequence[KeyState]) -> int:
        """Make the next pass take dead letters for changed files; how many."""
        self._pages.forget(sync_id)
        fresh = {"etag": REQUEUED, "state": int(KeyState.LIVE), "error": None, "retries": _keys.c.retries + 1}
        return self._connection.execute(update(_keys).where(*_dead(sync_id, states)).values(fresh)).rowcount

    def give_up(self, sync_id: SyncId, states: Sequence[KeyState], *, reason: str, now: str) -> int:
        """Show these dead letters no more; how many."""
        dead = select(_keys.c.sync_id, _keys.c.key, literal(reason), literal(now)).where(*_dead(sync_id, states))
        given_up = insert(_dead_letters).from_select(["sync_id", "key", "reason", "created_at"], dead)
        return self._connection.execute(given_up.execution_options(preserve_rowcount=True)).rowcount

    # Registered keys

    def keys_between(self, sync_id: SyncId, after: bytes | None, upto: bytes | None) -> list[tuple[Any, ...]]:
        """Registered keys in (after, upto], in byte order, as plain tuples of `SourceKey`'s first six fields.

        The hottest read of the system (every key of every pass): it goes around SQLAlchemy's rows.
        """
        query = "SELECT key, size, etag, version, state, object_id FROM source_keys WHERE sync_id = {} AND key > {}"
        values: list[Any] = [sync_id, after if after is not None else b""]
        if upto is not None:
            query += " AND key <= {}"
            values.append(upto)
        mark = "?" if self._connection.dialect.name == "sqlite" else "%s"
        result = self._connection.exec_driver_sql(query.replace("{}", mark) + " ORDER BY key", tuple(values))
        rows: list[tuple[Any, ...]] = list(result.cursor.fetchall())
        result.close()
        return rows if mark == "?" else [(bytes(row[0]), *row[1:]) for row in rows]

    def keys_named(self, sync_id: SyncId, keys: Iterable[bytes]) -> dict[bytes, tuple[Any, ...]]:
        """The same tuples for these keys, where registered, each with the generation of the pass that has seen it last."""
        wanted = (_keys.c.key, _keys.c.size, _keys.c.etag, _keys.c.version, _keys.c.state, _keys.c.object_id, _keys.c.seen)
        found: dict[bytes, tuple[Any, ...]] = {}
        for chunk in chunks(list(keys)):
            query = select(*wanted).where(_keys.c.sync_id == sync_id, _keys.c.key.in_(chunk))
            found.update((bytes(row[0]), (bytes(row[0]), *row[1:])) for row in self._connection.execute(query))
        return found

    def put_keys(self, sync_id: SyncId, keys: Sequence[SourceKey], *, generation: int) -> None:
        """Insert or replace registered keys."""
        if not keys:
            return
        self._pages.forget(sync_id, [key.key for key in keys])
        self._take_up(sync_id, [key.key for key in keys])
        rows = [key._asdict() | {"sync_id": sync_id, "seen": generation} for key in keys]
        if self._connection.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert as upsert
        else:
            from sqlalchemy.dialects.postgresql import insert as upsert  # type: ignore[assignment]
        statement = upsert(_keys)
        changed: dict[str, Any] = {name: statement.excluded[name] for name in rows[0] if name not in ("sync_id", "key")}
        changed["retries"] = case((statement.excluded.error.is_(None), 0), else_=_keys.c.retries)
        self._connection.execute(statement.on_conflict_do_update(index_elements=["sync_id", "key"], set_=changed), rows)

    def _take_up(self, sync_id: SyncId, keys: Sequence[bytes]) -> None:
        """Somebody may have given up on these keys; what they are now was not meant."""
        given_up = select(_dead_letters.c.key).where(_dead_letters.c.sync_id == sync_id).limit(1)
        if self._connection.execute(given_up).first() is not None:
            for chunk in chunks(keys):
                mine = and_(_dead_letters.c.sync_id == sync_id, _dead_letters.c.key.in_(chunk))
                self._connection.execute(delete(_dead_letters).where(mine))

    def set_key_state(self, sync_id: SyncId, keys: Sequence[bytes], state: KeyState) -> None:
        self._pages.forget(sync_id, keys)
        for chunk in chunks(keys):
            self._connection.execute(update(_keys).where(_keys.c.sync_id == sync_id, _keys.c.key.in_(chunk)).values(state=state))

    def mark_seen(self, sync_id: SyncId, keys: Sequence[bytes], *, generation: int) -> int:
        """Note that a pass has seen registered keys; how many of them for the first time."""
        first = 0
        for chunk in chunks(keys):
            unseen = and_(_keys.c.sync_id == sync_id, _keys.c.key.in_(chunk), _keys.c.seen != generation)
            first += self._connection.execute(update(_keys).where(unseen).values(seen=generation)).rowcount
        return first

    def unseen(self, sync_id: SyncId, *, generation: int, after: bytes, limit: int) -> list[tuple[Any, ...]]:
        """(key, size, etag) of keys above `after` that no pass from `generation` on has seen, in byte order."""
        query = select(_keys.c.key, _keys.c.size, _keys.c.etag).where(
            _keys.c.sync_id == sync_id, _keys.c.key > after, _keys.c.seen < generation
        )
        rows = self._connection.execute(query.order_by(_keys.c.key).limit(limit))
        return [(bytes(row[0]), *row[1:]) for row in rows]

    def mark_unseen_missing(self, sync_id: SyncId, *, generation: int) -> int:
        self._pages.forget(sync_id)
        unseen = and_(_keys.c.sync_id == sync_id, _keys.c.seen < generation, _keys.c.state != KeyState.MISSING)
        return self._connection.execute(update(_keys).where(unseen).values(state=KeyState.MISSING)).rowcount

    def forget_missing(self, sync_id: SyncId) -> None:
        """Take every doomed key back to what it was: the pass that doomed it was not to be trusted."""
        self._pages.forget(sync_id)
        doomed = and_(_keys.c.sync_id == sync_id, text(tables.IS_DOOMED))
        self._connection.execute(update(_keys).where(doomed).values(state=_BEFORE_MISSING))

    def found_again(self, sync_id: SyncId, keys: Sequence[bytes]) -> None:
        """Take doomed keys that stay after all back to what they were."""
        self._pages.forget(sync_id, keys)
        for chunk in chunks(keys):
            where = and_(_keys.c.sync_id == sync_id, _keys.c.key.in_(chunk))
            self._connection.execute(update(_keys).where(where).values(state=_BEFORE_MISSING))

    def doomed(
        self,
        sync_id: SyncId,
        states: Iterable[KeyState],
        *,
        limit: int,
        after: bytes | None = None,
        upto: bytes | None = None,
        seen: int = 0,
    ) -> list[SourceKey]:
        """Keys in (after, upto] in some of the states DOOMED, in byte order, that a pass from the generation `seen` on has seen."""
        query = select(_keys).where(_keys.c.sync_id == sync_id, text(tables.IS_DOOMED), _keys.c.seen >= seen)
        query = query.where(_keys.c.state.in_([int(state) for state in states]))
        if after is not None:
            query = query.where(_keys.c.key > after)
        if upto is not None:
            query = query.where(_keys.c.key <= upto)
        query = query.order_by(_keys.c.key).limit(limit)
        return [_key(row) for row in self._connection.execute(query)]

    def count_keys(self, sync_id: SyncId) -> dict[KeyState, int]:
        query = select(_keys.c.state, func.count()).where(_keys.c.sync_id == sync_id).group_by(_keys.c.state)
        return {KeyState(state): count for state, count in self._connection.execute(query)}

    def remove_keys(self, sync_id: SyncId, keys: Sequence[bytes]) -> None:
        self._pages.forget(sync_id, keys)
        for chunk in chunks(keys):
            self._connection.execute(delete(_keys).where(_keys.c.sync_id == sync_id, _keys.c.key.in_(chunk)))


# A key's error tells what it was before it was missed.
_BEFORE_MISSING = case(
    (_keys.c.error.is_(None), int(KeyState.LIVE)),
    (_keys.c.error.startswith(ARCHIVED_WORDS), int(KeyState.ARCHIVED)),
    else_=int(KeyState.REJECTED),
)


def _dead(sync_id: SyncId, states: Sequence[KeyState]) -> list[Any]:
    given_up = select(_dead_letters.c.key).where(_dead_letters.c.sync_id == _keys.c.sync_id, _dead_letters.c.key == _keys.c.key)
    wanted = [int(state) for state in states]
    return [_keys.c.sync_id == sync_id, _keys.c.error.is_not(None), _keys.c.state.in_(wanted), ~given_up.exists()]


def _due(now: str) -> Any:
    """A pass is under way, asked for, or its time has come; and the sync is neither paused nor done."""
    free = or_(_syncs.c.locked_by.is_(None), _syncs.c.lock_expires_at < now)
    asked = or_(_syncs.c.triggered_at.is_not(None), _syncs.c.next_pass_at <= now)
    return and_(free, asked, _syncs.c.status.not_in([SyncStatus.SUSPENDED]))


def _value(row: Row[Any]) -> Sync:
    return Sync(**row._mapping)


def _key(row: Row[Any]) -> SourceKey:
    return SourceKey(*(row._mapping[name] for name in SourceKey._fields))._replace(key=bytes(row._mapping["key"]))
