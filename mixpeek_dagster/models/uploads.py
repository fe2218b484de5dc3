"""Uploads: files that clients put into managed storage through a signed URL, and then confirm."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from pydantic import Field, field_validator

from mixpeek_dagster.models.ids import BucketId, NamespaceId, ObjectId, UploadId
from mixpeek_dagster.models.values import Lenient


class UploadStatus(StrEnum):
    """PENDING waits for the file; IN_PROGRESS has it; PROCESSING is being confirmed by a task; the others are final."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    PROCESSING = "PROCESSING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"

    @property
    def is_open(self) -> bool:
        return self in (UploadStatus.PENDING, UploadStatus.IN_PROGRESS, UploadStatus.PROCESSING)


class UploadCreate(Lenient):
    """Body of `POST /v1/buckets/{b}/uploads`."""

    filename: str = Field(min_length=1, max_length=255)
    content_type: str = Field(min_length=3, max_length=255, pattern=r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(\s*;.*)?$")
    file_size_bytes: int | None = Field(default=None, ge=1)
    presigned_url_expiration: int = Field(default=3600, ge=60, le=86400)
    metadata: dict[str, Any] | None = None
    create_object_on_confirm: bool = True
    object_metadata: dict[str, Any] | None = None
    blob_property: str | None = Field(default=None, min_length=1, max_length=100)
    blob_type: str | None = Field(default=None, max_length=50)
    file_hash: str | None = Field(default=None, pattern=r"^[0-9a-fA-F]{64}$", description="SHA-256, hex")
    skip_duplicates: bool = True

    @field_validator("filename")
    @classmethod
    def _is_a_plain_name(cls, name: str) -> str:
        if name in (".", "..") or any(character in "/\\" or ord(character) < 32 or ord(character) == 127 for character in name):
            raise ValueError("a file name holds no slash, backslash or control character, and is not . or ..")
        return name


class UploadBatch(Lenient):
    """Body of `POST …/uploads/batch`; what is shared is below what an upload says itself."""

    uploads: Sequence[UploadCreate] = Field(min_length=1, max_length=100)
    shared_metadata: dict[str, Any] = Field(default_factory=dict)
    shared_object_metadata: dict[str, Any] = Field(default_factory=dict)

    def each(self) -> list[UploadCreate]:
        """Every upload with what is shared filled in."""
        shared, of_object = self.shared_metadata, self.shared_object_metadata
        return [
            one.model_copy(
                update={
                    "metadata": {**shared, **(one.metadata or {})},
                    "object_metadata": {**of_object, **(one.object_metadata or {})},
                }
            )
            for one in self.uploads
        ]


class UploadConfirm(Lenient):
    """Body of `…/uploads/{u}/confirm`: what the client knows about the file it sent."""

    etag: str | None = Field(default=None, max_length=200)
    file_size_bytes: int | None = Field(default=None, ge=1)
    auto_submit_batch: bool = False


class UploadConfirmation(UploadConfirm):
    """One of several confirmations."""

    upload_id: str = Field(min_length=1, max_length=100)


class UploadConfirmations(Lenient):
    """Body of `…/uploads/confirm/batch`."""

    confirmations: Sequence[UploadConfirmation] = Field(min_length=1, max_length=100)


class Upload(UploadCreate):
    """An upload as recorded. `stored_*` is what arrived; `file_hash` is what the client promised, then what arrived. A file that
    `is_kept` was copied to where no URL that a client has can reach it."""

    upload_id: UploadId
    namespace_id: NamespaceId
    bucket_id: BucketId
    status: UploadStatus
    stored_etag: str | None = None
    stored_hash: str | None = None
    is_kept: bool = False
    is_duplicate: bool = False
    duplicate_of_upload_id: UploadId | None = None
    message: str | None = None
    object_id: ObjectId | None = None
    task_id: str | None = None
    batch_id: str | None = None
    verified_at: str | None = None
    completed_at: str | None = None
    expires_at: str
    created_at: str
    updated_at: str

    @property
    def key(self) -> str:
        """Where the file is in managed storage."""
        if not self.is_kept:
            return self.landing_key
        return f"{self.namespace_id}/{self.bucket_id}/{self.upload_id}-{(self.stored_hash or '')[:32]}"

    @property
    def landing_key(self) -> str:
        """Where clients put the file."""
        return f"{self.namespace_id}/{self.bucket_id}/uploads/{self.upload_id}"
