"""Records of uploads."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update

from mixpeek_dagster.catalog import request_tables
from mixpeek_dagster.catalog.lists import Listing, ordering, predicate
from mixpeek_dagster.catalog.rows import hold
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.ids import BucketId, NamespaceId, UploadId
from mixpeek_dagster.models.uploads import Upload, UploadStatus

_table = request_tables.uploads
_COLUMNS = (
    *("upload_id", "namespace_id", "bucket_id", "filename", "content_type", "status"),
    *("file_hash", "file_size_bytes", "object_id", "expires_at", "created_at", "updated_at"),
)
_FIELDS = {name: _table.c[name] for name in _COLUMNS}

_UNCONFIRMED = _table.c.status.in_([UploadStatus.PENDING, UploadStatus.IN_PROGRESS, UploadStatus.FAILED])


class UploadRecords:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def add(self, uploads: Sequence[Upload]) -> None:
        self._connection.execute(insert(_table), [_row(upload) for upload in uploads])

    def put(self, upload: Upload) -> None:
        self._connection.execute(update(_table).where(_table.c.upload_id == upload.upload_id).values(_row(upload)))

    def hold(self, upload_id: str) -> None:
        """Keep other transactions from changing it until this one ends."""
        hold(self._connection, _table.c.upload_id, upload_id)

    def get(self, upload_id: str, *, namespace_id: NamespaceId | None = None, bucket_id: BucketId | None = None) -> Upload:
        """By id.

        Raises:
            NotFound: there is none in that scope.
        """
        query = select(_table).where(_table.c.upload_id == upload_id)
        if namespace_id is not None:
            query = query.where(_table.c.namespace_id == namespace_id)
        if bucket_id is not None:
            query = query.where(_table.c.bucket_id == bucket_id)
        row = self._connection.execute(query).first()
        if row is None:
            raise NotFound(f"No upload {upload_id!r}.")
        return _value(row)

    def completed_with(self, bucket_id: BucketId, file_hash: str) -> Upload | None:
        """The oldest confirmed upload of the bucket with this content."""
        mine = (_table.c.bucket_id == bucket_id, _table.c.file_hash == file_hash, _table.c.status == UploadStatus.COMPLETED)
        row = self._connection.execute(select(_table).where(*mine).order_by(_table.c.created_at).limit(1)).first()
        return None if row is None else _value(row)

    def expire(self, bucket_id: BucketId, *, now: str) -> None:
        """Fail what waits for its file, or its confirmation, past its time; `give_up` has yet to come."""
        waiting = _table.c.status.in_([UploadStatus.PENDING, UploadStatus.IN_PROGRESS])
        late = (_table.c.bucket_id == bucket_id, waiting, _table.c.expires_at < now)
        self._connection.execute(update(_table).where(*late).values(status=UploadStatus.FAILED))

    def late(self, *, before: str, limit: int, completed: bool = False) -> list[Upload]:
        """Uploads whose time ended before `before`, which were not confirmed (or were, with `completed`) and are not given up yet."""
        ended = or_(_UNCONFIRMED, _table.c.status == UploadStatus.COMPLETED) if completed else _UNCONFIRMED
        late = (ended, _table.c.expires_at < before, _table.c.updated_at < _table.c.expires_at)
        query = select(_table).where(*late).order_by(_table.c.expires_at).limit(limit)
        return [_value(row) for row in self._connection.execute(query)]

    def give_up(self, upload_id: UploadId, *, now: str) -> bool:
        """Fail an upload for good, unless it was confirmed; whether it was failed. It is not `late` any more in any case."""
        self._connection.execute(update(_table).where(_table.c.upload_id == upload_id).values(updated_at=now))
        mine = update(_table).where(_table.c.upload_id == upload_id, _UNCONFIRMED)
        return self._connection.execute(mine.values(status=UploadStatus.FAILED, updated_at=now)).rowcount == 1

    def page(self, bucket_id: BucketId, listing: Listing) -> tuple[list[Upload], dict[str, Any]]:
        """One page, newest first unless sorted, and totals over everything that matches."""
        dialect = self._connection.dialect.name
        where = [
            _table.c.bucket_id == bucket_id,
            predicate(listing.filter, columns=_FIELDS, payload=_table.c.body, dialect=dialect),
        ]
        if listing.search:
            where.append(or_(func.lower(_table.c.filename).contains(listing.search.lower(), autoescape=True)))
        order = ordering(listing.sort, columns=_FIELDS, payload=_table.c.body, dialect=dialect)
        order = [*order, _table.c.created_at.desc(), _table.c.upload_id.desc()]
        query = select(_table).where(*where).order_by(*order).limit(listing.limit).offset(listing.offset)
        found = [_value(row) for row in self._connection.execute(query)]
        totals = select(_table.c.status, func.count(), func.coalesce(func.sum(_table.c.file_size_bytes), 0)).where(*where)
        by_status = {row[0]: (int(row[1]), int(row[2])) for row in self._connection.execute(totals.group_by(_table.c.status))}
        count, size = sum(one[0] for one in by_status.values()), sum(one[1] for one in by_status.values())
        return found, {
            "total_uploads": count,
            "total_size_bytes": size,
            "uploads_by_status": {status: one[0] for status, one in by_status.items()},
            "avg_file_size_bytes": size / count if count else 0.0,
            "unique_buckets": 1 if count else 0,
        }

    def all(self, bucket_id: BucketId) -> list[Upload]:
        return [_value(row) for row in self._connection.execute(select(_table).where(_table.c.bucket_id == bucket_id))]

    def remove(self, upload_id: UploadId) -> None:
        self._connection.execute(delete(_table).where(_table.c.upload_id == upload_id))


def _row(upload: Upload) -> dict[str, Any]:
    own = set(_COLUMNS)
    body = upload.model_dump(mode="json", exclude=own, exclude_none=True)
    return {**upload.model_dump(mode="json", include=own), "body": body}


def _value(row: Row[Any]) -> Upload:
    fields = dict(row._mapping)
    return Upload(**fields.pop("body"), **fields)
