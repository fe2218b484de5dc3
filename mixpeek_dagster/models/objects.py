"""Objects: one raw asset of a bucket, made of blobs and metadata."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field

from mixpeek_dagster.models.buckets import FieldType
from mixpeek_dagster.models.ids import BucketId, NamespaceId, ObjectId, SyncId
from mixpeek_dagster.models.values import Value


class ObjectStatus(StrEnum):
    """PENDING until a batch finished with the object."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Blob(Value):
    """Where one property's bytes are: inline (`text`), at a URL (`url`), in managed storage (`managed`), or at a synced key (`key`).

    `key` is the provider's key with undecodable bytes as surrogate escapes; `etag` and `version` pin the revision to read.
    """

    property: str
    type: FieldType
    text: str | None = None
    url: str | None = None
    managed: str | None = None
    key: str | None = None
    etag: str = ""
    version: str = ""
    filename: str = ""
    mime_type: str = ""
    size_bytes: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)


class StoredObject(Value):
    """An object as recorded. `revision` grows when its content changes; documents of an older revision are replaced."""

    object_id: ObjectId
    namespace_id: NamespaceId
    bucket_id: BucketId
    key_prefix: str | None = None
    blobs: Sequence[Blob]
    fields: dict[str, Any]
    unique_value: str | None = None
    sync_id: SyncId | None = None
    revision: int = 1
    status: ObjectStatus = ObjectStatus.PENDING
    error: str | None = None
    size_bytes: int = 0
    created_at: str
    updated_at: str
