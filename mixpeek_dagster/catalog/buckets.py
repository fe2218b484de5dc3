"""Records of buckets."""

from typing import Any

from sqlalchemy import Connection as Database
from sqlalchemy import Row, delete, func, select, update

from mixpeek_dagster.catalog import request_tables, tables
from mixpeek_dagster.catalog.rows import find, hold, insert_unique, page, update_unique
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.buckets import Bucket
from mixpeek_dagster.models.ids import BucketId, NamespaceId

_table = tables.buckets


class BucketRecords:
    def __init__(self, connection: Database) -> None:
        self._connection = connection

    def add(self, bucket: Bucket) -> None:
        insert_unique(self._connection, _table, _row(bucket), taken=_taken(bucket))

    def hold(self, bucket_id: BucketId) -> None:
        """Keep other transactions from changing it until this one ends."""
        hold(self._connection, _table.c.bucket_id, bucket_id)

    def get(self, identifier: str, *, namespace_id: NamespaceId) -> Bucket:
        """By id or name inside a namespace.

        Raises:
            NotFound: there is none.
        """
        row = find(self._connection, _table, identifier, id="bucket_id", name="bucket_name", namespace_id=namespace_id)
        if row is None:
            raise NotFound(f"No bucket {identifier!r} in namespace {namespace_id}.")
        return _value(row)

    def all(self, namespace_id: NamespaceId | None = None) -> list[Bucket]:
        query = select(_table).order_by(_table.c.created_at, _table.c.bucket_id)
        if namespace_id is not None:
            query = query.where(_table.c.namespace_id == namespace_id)
        return [_value(row) for row in self._connection.execute(query)]

    def page(self, namespace_id: NamespaceId, *, search: str | None = None, limit: int, offset: int) -> tuple[list[Bucket], int]:
        query = select(_table).where(_table.c.namespace_id == namespace_id)
        if search:
            query = query.where(func.lower(_table.c.bucket_name).contains(search.lower(), autoescape=True))
        rows, total = page(self._connection, query, order=[_table.c.created_at, _table.c.bucket_id], limit=limit, offset=offset)
        return [_value(row) for row in rows], total

    def put(self, bucket: Bucket) -> None:
        """Replace what a user may change; the running totals are left to `count`. Raises AlreadyExists for a taken name."""
        values = {key: value for key, value in _row(bucket).items() if key not in ("object_count", "total_size_bytes")}
        changed = update(_table).where(_table.c.bucket_id == bucket.bucket_id).values(values)
        update_unique(self._connection, changed, taken=_taken(bucket))

    def count(self, bucket_id: BucketId, *, objects: int, size_bytes: int) -> None:
        """Add to the running totals."""
        if objects or size_bytes:
            self._connection.execute(
                update(_table)
                .where(_table.c.bucket_id == bucket_id)
                .values(object_count=_table.c.object_count + objects, total_size_bytes=_table.c.total_size_bytes + size_bytes)
            )

    def stats(self, bucket_id: BucketId) -> dict[str, Any]:
        """What is counted when one bucket is read: its objects' sizes, failed objects, last upload, batches by how they are."""
        objects, batches, uploads = tables.objects.c, tables.batches.c, request_tables.uploads.c
        largest, smallest = self._connection.execute(
            select(func.max(objects.size_bytes), func.min(objects.size_bytes)).where(objects.bucket_id == bucket_id)
        ).one()
        failed = select(func.count()).where(objects.bucket_id == bucket_id, objects.status == "FAILED")
        last_upload = select(func.max(uploads.created_at)).where(uploads.bucket_id == bucket_id)
        by_status = select(batches.status, func.count()).where(batches.bucket_id == bucket_id).group_by(batches.status)
        counts = {status: int(count) for status, count in self._connection.execute(by_status)}
        return {
            "storage": {"max_size_bytes": largest or 0, "min_size_bytes": smallest or 0},
            "failed_object_count": self._connection.execute(failed).scalar_one(),
            "last_upload_at": self._connection.execute(last_upload).scalar(),
            "batch_stats": {
                "total": sum(counts.values()),
                "active": counts.get("QUEUED", 0) + counts.get("PROCESSING", 0),
                "completed": counts.get("COMPLETED", 0),
                "failed": counts.get("FAILED", 0),
            },
        }

    def remove(self, bucket_id: BucketId) -> None:
        self._connection.execute(delete(_table).where(_table.c.bucket_id == bucket_id))


def _taken(bucket: Bucket) -> str:
    return f"Bucket name {bucket.bucket_name!r} is taken in this namespace; choose another."


def _row(bucket: Bucket) -> dict[str, Any]:
    own = {"bucket_id", "namespace_id", "bucket_name", "object_count", "total_size_bytes", "created_at", "updated_at"}
    body = bucket.model_dump(mode="json", exclude=own, exclude_none=True)
    return {**bucket.model_dump(include=own), "body": body}


def _value(row: Row[Any]) -> Bucket:
    fields = dict(row._mapping)
    return Bucket(**fields.pop("body"), **fields)
