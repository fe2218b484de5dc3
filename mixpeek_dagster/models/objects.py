"""Objects: one raw asset of a bucket, made of blobs and metadata."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from mixpeek_dagster.models.buckets import FieldType
from mixpeek_dagster.models.ids import BlobId, BucketId, NamespaceId, ObjectId, SyncId, derived_id
from mixpeek_dagster.models.values import Lenient, Value

MAX_TRIES = 3
"""An object of a sync that failed so often is a dead letter."""

GIVEN_UP = 1_000
"""The tries of a dead letter that somebody does not want to see any more."""


class ObjectStatus(StrEnum):
    """PENDING until a batch finished with the object."""

    PENDING = "PENDING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Blob(Value):
    """Where one property's bytes are: inline (`text`), at a URL (`url`), in managed storage (`managed`), or at a synced key (`key`).

    `key` is the provider's key as text; where that is not all of it, as no database holds the rest, `key_hex` is its bytes.
    `etag` and `version` pin the revision to read.
    """

    property: str
    type: FieldType
    text: str | None = None
    url: str | None = None
    managed: str | None = None
    key: str | None = None
    key_hex: str | None = None
    etag: str = ""
    version: str = ""
    filename: str = ""
    mime_type: str = ""
    size_bytes: int | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    def source_key(self) -> bytes:
        """The provider's own key, of a blob that has one."""
        return bytes.fromhex(self.key_hex) if self.key_hex else (self.key or "").encode()


class StoredObject(Value):
    """An object as recorded. `revision` grows when its content changes; documents of an older revision are replaced.

    `tries` is how many batches failed on the present revision; a sync puts an object into another one until it is `MAX_TRIES`.
    """

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
    tries: int = 0
    created_at: str
    updated_at: str

    def blob_id(self, blob: Blob) -> BlobId:
        """A name for one of the object's blobs that lasts as long as the blob has its property."""
        return BlobId(derived_id("blob", self.object_id, blob.property, str(list(self.blobs).index(blob))))


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


class BlobCreate(Lenient):
    """One blob of a new object: exactly one of `url`, `content` (inline text), `data` and `upload_id` says where its bytes are."""

    property: str = Field(min_length=1, max_length=100)
    type: Annotated[FieldType, BeforeValidator(_lower)]
    url: str | None = Field(default=None, min_length=1, max_length=8192)
    content: Any = None
    data: Any = None
    upload_id: str | None = Field(default=None, min_length=1, max_length=100)
    checksum: str | None = Field(default=None, max_length=256)
    filename: str | None = Field(default=None, max_length=255)
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        given = [name for name in ("url", "content", "data", "upload_id") if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"got {' and '.join(given)}" if given else "got none"
            raise ValueError(f"blob {self.property!r} needs exactly one of url, content, data, upload_id; {said}")
        if not self.type.is_blob:
            raise ValueError(f"blob {self.property!r}: {self.type.value} is no blob type; send it as metadata")
        return self


class ObjectCreate(Lenient):
    """Body of `POST /v1/buckets/{b}/objects`. Every other key at the root is metadata, as is what `metadata` holds."""

    model_config = ConfigDict(frozen=True, extra="allow")

    key_prefix: str | None = Field(default=None, max_length=1024)
    blobs: Sequence[BlobCreate] = Field(default=(), max_length=100)
    metadata: dict[str, Any] = Field(default_factory=dict)
    skip_duplicates: bool = False
    idempotency_key: str | None = Field(default=None, min_length=1, max_length=255)

    @property
    def fields(self) -> dict[str, Any]:
        """The metadata: blobs' first, then `metadata`, then the root, which wins."""
        lifted: dict[str, Any] = {}
        for blob in reversed(self.blobs):
            lifted.update(blob.metadata)
        return {
            name: value for name, value in {**lifted, **self.metadata, **_own(self.model_extra)}.items() if name not in RESERVED
        }


class ObjectChange(Lenient):
    """Body of PATCH and PUT on an object: keys at the root, or below `metadata`, are metadata."""

    model_config = ConfigDict(frozen=True, extra="allow")

    key_prefix: str | None = Field(default=None, max_length=1024)
    metadata: dict[str, Any] = Field(default_factory=dict)
    skip_duplicates: bool | None = None

    @property
    def fields(self) -> dict[str, Any]:
        return {name: value for name, value in {**self.metadata, **_own(self.model_extra)}.items() if name not in RESERVED}


RESERVED = frozenset(
    {
        *("object_id", "bucket_id", "namespace_id", "blobs", "status", "error", "created_at", "updated_at", "document_count"),
        *("canonicalize_source", "force_remirror", "edges", "source_details", "consistency", "blob_id"),
    }
)
"""Names that belong to the system: never taken as metadata."""


def _own(extra: dict[str, Any] | None) -> dict[str, Any]:
    return extra or {}
