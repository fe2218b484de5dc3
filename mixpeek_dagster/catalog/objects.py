"""Records of objects."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from typing import cast as cast_type

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Text,
    and_,
    bindparam,
    case,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    tuple_,
    update,
)

from mixpeek_dagster.catalog import request_tables, tables
from mixpeek_dagster.catalog.groups import aggregate, group_expression
from mixpeek_dagster.catalog.lists import Listing, ordering, predicate
from mixpeek_dagster.catalog.operands import Dialect, Sql
from mixpeek_dagster.catalog.rows import chunks, hold, insert_unique, page, rows_among, rows_named
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import BucketId, CollectionId, NamespaceId, ObjectId, SyncId
from mixpeek_dagster.models.objects import GIVEN_UP, MAX_TRIES, ObjectStatus, StoredObject
from mixpeek_dagster.models.syncs import SyncStatus

_table, _keys, _disabled = tables.objects, request_tables.object_keys, request_tables.disabled_objects
_COLUMNS = ("object_id", "bucket_id", "namespace_id", "key_prefix", "sync_id", "status", "error", "size_bytes", "revision")
_FIELDS = {name: _table.c[name] for name in (*_COLUMNS, "created_at", "updated_at")}


class ObjectRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, objects: Sequence[StoredObject]) -> None:
        if objects:
            self._connection.execute(insert(_table), [_row(stored) for stored in objects])

    def put(self, objects: Sequence[StoredObject]) -> None:
        """Replace objects that exist."""
        if objects:
            changeable = [
                column.name for column in _table.c if column.name not in ("object_id", "namespace_id", "bucket_id", "created_at")
            ]
            statement = (
                update(_table)
                .where(_table.c.object_id == bindparam("_id"))
                .values({name: bindparam(name) for name in changeable})
            )
            rows = [_row(stored) for stored in sorted(objects, key=lambda stored: stored.object_id)]  # as `hold_all` takes them
            self._connection.execute(
                statement, [{name: row[name] for name in changeable} | {"_id": row["object_id"]} for row in rows]
            )

    def hold(self, object_id: str) -> None:
        """Keep other transactions from changing it until this one ends."""
        hold(self._connection, _table.c.object_id, object_id)

    def hold_all(self, object_ids: Iterable[str]) -> dict[str, int]:
        """Keep other transactions from changing objects until this one ends: the revisions of those that exist. Everybody takes them in
        the order of their ids, so that nobody waits for somebody who waits."""
        found: dict[str, int] = {}
        for chunk in chunks(sorted(set(object_ids))):
            query = (
                select(_table.c.object_id, _table.c.revision).where(_table.c.object_id.in_(chunk)).order_by(_table.c.object_id)
            )
            rows = self._connection.execute(query.with_for_update(key_share=True))
            found.update((row.object_id, row.revision) for row in rows)
        return found

    def get(self, object_id: str, *, namespace_id: NamespaceId, bucket_id: BucketId | None = None) -> StoredObject:
        """By id inside a namespace (and bucket).

        Raises:
            NotFound: there is none.
        """
        query = select(_table).where(_table.c.object_id == object_id, _table.c.namespace_id == namespace_id)
        if bucket_id is not None:
            query = query.where(_table.c.bucket_id == bucket_id)
        row = self._connection.execute(query).first()
        if row is None:
            raise NotFound(f"No object {object_id!r} in {bucket_id or namespace_id}.")
        return _value(row)

    def named(self, object_ids: Iterable[str]) -> dict[str, StoredObject]:
        """The objects with these ids that exist, by id."""
        return {row.object_id: _value(row) for row in rows_named(self._connection, _table.c.object_id, object_ids)}

    def by_unique_value(self, bucket_id: BucketId, unique_value: str) -> StoredObject | None:
        row = self._connection.execute(
            select(_table).where(_table.c.bucket_id == bucket_id, _table.c.unique_value == unique_value)
        ).first()
        return None if row is None else _value(row)

    def by_key(self, bucket_id: BucketId, key: str) -> StoredObject | None:
        """The object that a client's idempotency key made."""
        made = select(_keys.c.object_id).where(_keys.c.bucket_id == bucket_id, _keys.c.key == key)
        row = self._connection.execute(select(_table).where(_table.c.object_id.in_(made))).first()
        return None if row is None else _value(row)

    def remember_key(self, bucket_id: BucketId, key: str, object_id: ObjectId, *, now: str) -> None:
        """Raises AlreadyExists when another request used the key at the same moment."""
        row = {"bucket_id": bucket_id, "key": key, "object_id": object_id, "created_at": now}
        insert_unique(
            self._connection, _keys, row, taken="Another request used the same idempotency key at the same moment; repeat it."
        )

    def page(self, bucket_id: BucketId, listing: Listing) -> tuple[list[StoredObject], int]:
        """One page, newest first unless sorted, and how many match."""
        dialect = self._connection.dialect.name
        where = [_table.c.bucket_id == bucket_id]
        if not listing.filter.is_empty:
            where.append(predicate(listing.filter, columns=_FIELDS, payload=_table.c.fields, dialect=dialect))
        if listing.search:
            term = listing.search.lower()
            texts = (_table.c.key_prefix, cast(_table.c.fields, Text), cast(_table.c.blobs, Text))
            where.append(or_(*(func.lower(text).contains(term, autoescape=True) for text in texts)))
        total = self._connection.execute(select(func.count()).select_from(_table).where(*where)).scalar_one()
        query = select(_table).where(*where)
        if listing.after is not None:
            query = query.where(tuple_(_table.c.created_at, _table.c.object_id) < tuple_(*map(literal, listing.after)))
        order = ordering(listing.sort, columns=_FIELDS, payload=_table.c.fields, dialect=dialect)
        query = query.order_by(*order, _table.c.created_at.desc(), _table.c.object_id.desc())
        rows = self._connection.execute(query.limit(listing.limit).offset(listing.offset))
        return [_value(row) for row in rows], total

    def ids_in_bucket(self, bucket_id: BucketId, *, limit: int | None = None) -> list[ObjectId]:
        query = (
            select(_table.c.object_id).where(_table.c.bucket_id == bucket_id).order_by(_table.c.created_at, _table.c.object_id)
        )
        return [ObjectId(row[0]) for row in self._connection.execute(query.limit(limit) if limit else query)]

    def matching(
        self, bucket_id: BucketId, filter: Filter, *, among: Sequence[str] | None = None, limit: int | None = None
    ) -> list[ObjectId]:
        """Ids of the objects that pass a filter and are not disabled, the oldest first; only those in `among` when it is given."""
        is_disabled = select(_disabled.c.object_id).where(_disabled.c.object_id == _table.c.object_id).exists()
        query = select(_table.c.object_id).where(_table.c.bucket_id == bucket_id, ~is_disabled)
        if not filter.is_empty:
            dialect = self._connection.dialect.name
            query = query.where(predicate(filter, columns=_FIELDS, payload=_table.c.fields, dialect=dialect))
        found = self._connection.execute(query.order_by(_table.c.created_at, _table.c.object_id)).scalars()
        wanted = None if among is None else set(among)
        return [ObjectId(one) for one in found if wanted is None or one in wanted][:limit]

    def aggregates(
        self, bucket_id: BucketId, filter: Filter, keys: Sequence[str], measures: Sequence[tuple[str, str | None]]
    ) -> Sequence[Row[Any]]:
        """One row per group of the key fields: the keys, then every (function, field). Raises Invalid for an unknown function."""
        name = cast_type(Dialect, self._connection.dialect.name)
        fields: Sql = _table.c.fields
        grouped = [group_expression(one, columns=_FIELDS, payload=fields, dialect=name) for one in keys]
        numbers = [aggregate(one, field, columns=_FIELDS, payload=fields, dialect=name) for one, field in measures]
        columns = [column.label(f"c{place}") for place, column in enumerate([*grouped, *numbers])]
        where = [_table.c.bucket_id == bucket_id]
        if not filter.is_empty:
            where.append(predicate(filter, columns=_FIELDS, payload=fields, dialect=name))
        return self._connection.execute(select(*columns).where(*where).group_by(*grouped)).all()

    def without_documents(
        self, collection_id: CollectionId, *, bucket_ids: Sequence[str], above: Sequence[str], limit: int
    ) -> tuple[list[StoredObject], int]:
        """Objects that a collection reads but has no document of, the oldest first, and how many it reads in all.

        Args:
            bucket_ids: the buckets it reads.
            above: or the collections it reads: then the objects are those that their documents come from.
        """
        made, own = tables.documents.c, _table.c.object_id
        read = (
            _table.c.bucket_id.in_(bucket_ids)
            if bucket_ids
            else own.in_(select(made.root_object_id).where(made.collection_id.in_(above), made.state != DocumentState.DELETING))
        )
        has = select(made.document_id).where(
            made.root_object_id == own, made.collection_id == collection_id, made.state != DocumentState.DELETING
        )
        total = self._connection.execute(select(func.count()).select_from(_table).where(read)).scalar_one()
        query = select(_table).where(read, ~has.exists()).order_by(_table.c.created_at, own).limit(limit)
        return [_value(row) for row in self._connection.execute(query)], int(total)

    # Objects that nothing is made of

    def disable(self, object_ids: Sequence[str], *, state: str, reason: str, source: str, now: str) -> None:
        """Keep objects from being processed, until `enable`."""
        self.enable(object_ids)
        why = {"lifecycle_state": state, "reason": reason, "source": source, "created_at": now}
        if object_ids:
            self._connection.execute(insert(_disabled), [{"object_id": one, **why} for one in object_ids])

    def enable(self, object_ids: Sequence[str]) -> None:
        for chunk in chunks(object_ids):
            self._connection.execute(delete(_disabled).where(_disabled.c.object_id.in_(chunk)))

    def disabled(self, object_ids: Iterable[str]) -> dict[str, str]:
        """The lifecycle states of those that are disabled, by id."""
        query = select(_disabled.c.object_id, _disabled.c.lifecycle_state)
        return {row[0]: row[1] for row in rows_among(self._connection, query, _disabled.c.object_id, object_ids)}

    def count(self, bucket_id: BucketId, *, status: ObjectStatus) -> int:
        query = select(func.count()).where(_table.c.bucket_id == bucket_id, _table.c.status == status)
        return self._connection.execute(query).scalar_one()

    def set_status(self, object_ids: Sequence[str], status: ObjectStatus, *, now: str) -> None:
        self.hold_all(object_ids)
        for chunk in chunks(object_ids):
            values: dict[str, Any] = {"status": status, "error": None, "updated_at": now}
            if status is ObjectStatus.COMPLETED:
                values["tries"] = 0
            self._connection.execute(update(_table).where(_table.c.object_id.in_(chunk)).values(values))

    def taken_later(self, object_ids: Iterable[str], batch: Batch) -> set[str]:
        """Those of the objects that are in a batch submitted after this one, or in one that a sync is filling: it says how they are."""
        items, later = tables.batch_items, tables.batches
        mine = tuple_(literal(batch.submitted_at or ""), literal(batch.batch_id))
        is_later = or_(
            tuple_(later.c.submitted_at, later.c.batch_id) > mine,
            and_(later.c.status == BatchStatus.DRAFT, later.c.sync_id.is_not(None)),
        )
        query = select(items.c.item_id).join(later, later.c.batch_id == items.c.batch_id).where(is_later)
        return {row[0] for row in rows_among(self._connection, query, items.c.item_id, object_ids)}

    def fail(self, errors: Mapping[str, str], *, hopeless: Collection[str] = (), now: str) -> None:
        """Set objects FAILED with their reasons, and count the try; for the `hopeless` ones it counts as their last."""
        if errors:
            tries = case((_table.c.tries + 1 < bindparam("_tries"), bindparam("_tries")), else_=_table.c.tries + 1)
            statement = update(_table).where(_table.c.object_id == bindparam("_id"))
            statement = statement.values(status=ObjectStatus.FAILED, error=bindparam("_error"), tries=tries, updated_at=now)
            rows = [
                {"_id": object_id, "_error": error, "_tries": MAX_TRIES if object_id in hopeless else 1}
                for object_id, error in sorted(errors.items())  # as `hold_all` takes them
            ]
            self._connection.execute(statement, rows)

    def failed_of_sync(self, sync_id: SyncId, *, dead: bool, limit: int, offset: int = 0) -> tuple[list[StoredObject], int]:
        """A sync's failed objects by id, and how many there are: those that may be tried again, or the `dead` letters."""
        enough = _is_dead(sync_id) if dead else _table.c.tries < MAX_TRIES
        where = (_table.c.sync_id == sync_id, _table.c.status == ObjectStatus.FAILED, enough)
        rows, total = page(self._connection, select(_table).where(*where), order=[_table.c.object_id], limit=limit, offset=offset)
        return [_value(row) for row in rows], total

    def set_tries(self, sync_id: SyncId, tries: int) -> int:
        """Let a sync's dead letters be tried again (0), or be shown no more (`GIVEN_UP`); how many."""
        dead = (_table.c.status == ObjectStatus.FAILED, _is_dead(sync_id))
        return self._connection.execute(update(_table).where(_table.c.sync_id == sync_id, *dead).values(tries=tries)).rowcount

    def remove(self, object_ids: Sequence[str]) -> tuple[int, int]:
        """Delete objects; how many there were and their bytes."""
        count = size = 0
        for chunk in chunks(object_ids):
            found, bytes_ = self._connection.execute(
                select(func.count(), func.coalesce(func.sum(_table.c.size_bytes), 0)).where(_table.c.object_id.in_(chunk))
            ).one()
            count, size = count + found, size + int(bytes_)
            self._connection.execute(delete(_table).where(_table.c.object_id.in_(chunk)))
        return count, size


def _is_dead(sync_id: SyncId) -> ColumnElement[bool]:
    """Nothing tries such a failed object again by itself: it was tried often enough, or no pass of its sync follows."""
    done = select(tables.syncs.c.sync_id).where(tables.syncs.c.sync_id == sync_id, tables.syncs.c.status == SyncStatus.COMPLETED)
    return or_(_table.c.tries.between(MAX_TRIES, GIVEN_UP - 1), and_(_table.c.tries < MAX_TRIES, done.exists()))


def _row(stored: StoredObject) -> dict[str, Any]:
    row = stored.__dict__.copy()
    row["blobs"] = [blob.model_dump(mode="json", exclude_defaults=True) for blob in stored.blobs]
    return row


def _value(row: Row[Any]) -> StoredObject:
    return StoredObject(**row._mapping)
