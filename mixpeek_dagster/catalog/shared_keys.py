"""Records of files that several syncs of a bucket know, and of keys that a deleted sync leaves to one that is made again.

Two syncs that name the same object under the same key share it; the object's own `sync_id` says who reads it.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, and_, delete, insert, select, update

from mixpeek_dagster.catalog import request_tables, tables
from mixpeek_dagster.catalog.rows import chunks, rows_among
from mixpeek_dagster.models.ids import BucketId, ObjectId, SyncId

_keys, _objects, _left = tables.source_keys, tables.objects, request_tables.left_syncs


class KnownFile(NamedTuple):
    """A key that a sync has registered, and the object it has there."""

    sync_id: SyncId
    key: bytes
    object_id: ObjectId


class SharedKeyRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def known(self, sync_ids: Collection[SyncId], keys: Sequence[bytes]) -> list[KnownFile]:
        """These keys where these syncs have registered them with an object."""
        if not sync_ids:
            return []
        query = select(_keys.c.sync_id, _keys.c.key, _keys.c.object_id)
        query = query.where(_keys.c.sync_id.in_(sync_ids), _keys.c.object_id.is_not(None))
        rows = rows_among(self._connection, query, _keys.c.key, keys)
        return [KnownFile(row[0], bytes(row[1]), row[2]) for row in rows]

    def give(self, object_ids: Iterable[str], sync_id: SyncId) -> None:
        """Let a sync be the one that reads these objects."""
        for chunk in chunks(list(object_ids)):
            self._connection.execute(update(_objects).where(_objects.c.object_id.in_(chunk)).values(sync_id=sync_id))

    def give_shared(self, sync_id: SyncId, other: SyncId) -> None:
        """Let another sync read all the objects that both have."""
        its = _keys.alias()
        same = and_(its.c.sync_id == other, its.c.key == _keys.c.key, its.c.object_id == _keys.c.object_id)
        both = select(_keys.c.object_id).join(its, same).where(_keys.c.sync_id == sync_id)
        mine = and_(_objects.c.object_id.in_(both), _objects.c.sync_id == sync_id)
        self._connection.execute(update(_objects).where(mine).values(sync_id=other))

    # What deleted syncs leave

    def leave(self, sync_id: SyncId, *, bucket_id: BucketId, place: str, now: str) -> None:
        """Keep the keys of a sync that is being deleted, for one that follows the same place again."""
        self._connection.execute(delete(_keys).where(_keys.c.sync_id == sync_id, _keys.c.object_id.is_(None)))
        if self._has_keys(sync_id):
            row = {"sync_id": sync_id, "bucket_id": bucket_id, "place": place, "created_at": now}
            self._connection.execute(insert(_left), row)

    def left(self, bucket_id: BucketId) -> Mapping[SyncId, str]:
        """The deleted syncs of a bucket that left keys, and the place that each followed."""
        rows = self._connection.execute(select(_left.c.sync_id, _left.c.place).where(_left.c.bucket_id == bucket_id))
        return {SyncId(row[0]): row[1] for row in rows}

    def forget(self, files: Sequence[KnownFile]) -> None:
        """Forget what was left and is another sync's now, and the deleted syncs that have left nothing more."""
        for sync_id in {one.sync_id for one in files}:
            for chunk in chunks([one.key for one in files if one.sync_id == sync_id]):
                self._connection.execute(delete(_keys).where(_keys.c.sync_id == sync_id, _keys.c.key.in_(chunk)))
            if not self._has_keys(sync_id):
                self._connection.execute(delete(_left).where(_left.c.sync_id == sync_id))

    def _has_keys(self, sync_id: SyncId) -> bool:
        first = (
            select(_keys.c.key).where(_keys.c.sync_id == sync_id).order_by(_keys.c.key).limit(1)
        )  # ordered, Postgres takes the index
        return self._connection.execute(first).first() is not None

    def forget_bucket(self, bucket_id: BucketId) -> None:
        """Forget all that deleted syncs of a bucket left."""
        of_bucket = select(_left.c.sync_id).where(_left.c.bucket_id == bucket_id)
        self._connection.execute(delete(_keys).where(_keys.c.sync_id.in_(of_bucket)))
        self._connection.execute(delete(_left).where(_left.c.bucket_id == bucket_id))
