"""Files that clients put into managed storage: announce, receive, confirm.

The object that a confirmation makes takes the upload's file over; other objects that name the upload get copies.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.errors import BadRequest, Changed, Forbidden, Invalid, MixpeekError, ProviderDown, ProviderError, WrongState
from mixpeek_dagster.models.buckets import Bucket, BucketSchema, FieldType, Policy, blob_type_of
from mixpeek_dagster.models.ids import BucketId, NamespaceId, ObjectId, UploadId, new_id
from mixpeek_dagster.models.objects import ObjectCreate
from mixpeek_dagster.models.tasks import Task, TaskType
from mixpeek_dagster.models.uploads import Upload, UploadConfirm, UploadConfirmation, UploadCreate, UploadStatus
from mixpeek_dagster.pipeline.batches import create_batch, submit
from mixpeek_dagster.pipeline.blobs import blob_of
from mixpeek_dagster.pipeline.objects import register
from mixpeek_dagster.pipeline.tasks import add_task
from mixpeek_dagster.pipeline.warehouse import Warehouse
from mixpeek_dagster.storage.blobs import Blob as StoredFile

LARGE_BYTES = 100 * 1000**2
"""From here on a confirmation is a task."""

SWEEP_AFTER_S = 3600.0


@dataclass(frozen=True)
class Confirmed:
    """An upload after its confirmation; with a task it goes on in the background."""

    upload: Upload
    task: Task | None = None


def announce(warehouse: Warehouse, bucket: Bucket, bodies: Sequence[UploadCreate]) -> list[Upload]:
    """Record uploads that will come, all of them or none.

    Raises:
        Invalid: the bucket's schema has no place for such a file, or the file is larger than the server takes.
    """
    with warehouse.catalog.transaction() as records:
        uploads = [_announced(records, warehouse, bucket, body) for body in bodies]
        records.uploads.add(uploads)
    return uploads


def _announced(records: Records, warehouse: Warehouse, bucket: Bucket, body: UploadCreate) -> Upload:
    most = warehouse.settings.max_upload_bytes
    if body.file_size_bytes and body.file_size_bytes > most:
        raise Invalid(f"file_size_bytes: this server accepts files of at most {most} bytes.")
    place = _place(bucket, body) if body.create_object_on_confirm or body.blob_property else None
    now = warehouse.now()
    digest = body.file_hash.lower() if body.file_hash else None
    twin = records.uploads.completed_with(bucket.bucket_id, digest) if digest and body.skip_duplicates else None
    upload = Upload(
        **body.model_dump(exclude={"file_hash", "blob_property", "blob_type"}),
        file_hash=digest,
        blob_property=place,
        blob_type=bucket.bucket_schema.properties[place].type.value if place else body.blob_type,
        upload_id=UploadId(new_id("upl")),
        namespace_id=bucket.namespace_id,
        bucket_id=bucket.bucket_id,
        status=UploadStatus.PENDING,
        expires_at=warehouse.now(plus_s=body.presigned_url_expiration),
        created_at=now,
        updated_at=now,
    )
    if twin is None:
        return upload
    same = {"is_duplicate": True, "duplicate_of_upload_id": twin.upload_id, "object_id": twin.object_id}
    done = {"status": UploadStatus.COMPLETED, "completed_at": now, "file_size_bytes": twin.file_size_bytes}
    return upload.model_copy(update={**same, **done, "message": f"The bucket has this content as upload {twin.upload_id}."})


def _place(bucket: Bucket, body: UploadCreate) -> str:
    """The blob property a file goes to: as asked for, else the first that takes files of its type."""
    if body.blob_property is not None:
        if body.blob_property not in bucket.bucket_schema.blobs:
            raise Invalid(
                f"blob_property {body.blob_property!r} is no blob property of the bucket: {sorted(bucket.bucket_schema.blobs)}."
            )
        return body.blob_property
    kind = blob_type_of(body.content_type.partition(";")[0].strip().lower())
    found = bucket.bucket_schema.property_for(kind)
    if found is None:
        raise Invalid(
            f"The bucket's schema has no property for files of type {kind.value}: {sorted(bucket.bucket_schema.blobs)}."
        )
    return found


def receive(warehouse: Warehouse, upload_id: str, content_type: str | None, chunks: Iterable[bytes]) -> StoredFile:
    """Store an upload's file; sent again before the confirmation, it replaces the first.

    Raises:
        WrongState: the upload is confirmed or canceled. Forbidden: another content type than was announced.
        BadRequest: not as many bytes as were announced.
    """
    with warehouse.catalog.reading() as records:
        upload = records.uploads.get(upload_id)
    if upload.status not in (UploadStatus.PENDING, UploadStatus.IN_PROGRESS):
        raise WrongState(f"Upload {upload_id} is {upload.status}; it takes no file any more.")
    if upload.expires_at < warehouse.now():
        raise WrongState(f"Upload {upload_id} expired at {upload.expires_at}; announce the file again.")
    given = (content_type or "").partition(";")[0].strip().lower()
    if given and given != upload.content_type.partition(";")[0].strip().lower():
        raise Forbidden(f"The upload was announced as {upload.content_type}; send that Content-Type, or none.")
    most = min(upload.file_size_bytes or warehouse.settings.max_upload_bytes, warehouse.settings.max_upload_bytes)
    stored = warehouse.blobs.put(upload.key, _Stream(chunks), max_bytes=most, replace=True)
    with warehouse.catalog.transaction() as records:
        records.uploads.hold(upload_id)
        current = records.uploads.get(upload_id)
        if current.status not in (UploadStatus.PENDING, UploadStatus.IN_PROGRESS):
            raise WrongState(f"Upload {upload_id} was {current.status} meanwhile.")
        arrived = {"status": UploadStatus.IN_PROGRESS, "stored_etag": stored.sha256, "stored_hash": stored.sha256}
        records.uploads.put(current.model_copy(update={**arrived, "updated_at": warehouse.now()}))
    return stored


def confirm(
    warehouse: Warehouse,
    namespace_id: NamespaceId,
    upload_id: str,
    body: UploadConfirm,
    *,
    bucket_id: BucketId | None = None,
    policy: Policy | None = None,
    in_background: bool | None = None,
) -> Confirmed:
    """Check that the file is there and is what was announced, and make its object; confirming again changes nothing.

    Large files, or `in_background`, become a task.

    Raises:
        WrongState: no file was sent, or the upload expired, failed or was canceled.
        BadRequest: size, ETag or hash differ. Others: as `create_object` raises them.
    """
    with warehouse.catalog.reading() as records:
        upload = records.uploads.get(upload_id, namespace_id=namespace_id, bucket_id=bucket_id)
    if upload.status is UploadStatus.COMPLETED or upload.status is UploadStatus.PROCESSING:
        return Confirmed(upload)
    stored = warehouse.blobs.head(upload.key)
    size = _check(warehouse, upload, stored, body)
    if in_background or (in_background is None and size >= LARGE_BYTES):
        with warehouse.catalog.transaction() as records:
            records.uploads.hold(upload_id)
            upload = records.uploads.get(upload_id)
            if not upload.status.is_open or upload.status is UploadStatus.PROCESSING:
                return Confirmed(upload)
            given = body.model_dump(mode="json", include=set(UploadConfirm.model_fields)) | {"upload_id": upload_id}
            inputs = {"namespace_id": namespace_id, "confirmations": [given], "policy": policy}
            task = add_task(records, TaskType.CONFIRM_UPLOAD, inputs, namespace_id=namespace_id, now=warehouse.now())
            going = {"status": UploadStatus.PROCESSING, "task_id": task.task_id, "updated_at": warehouse.now()}
            records.uploads.put(upload.model_copy(update=going))
            return Confirmed(upload.model_copy(update=going), task)
    return Confirmed(_complete(warehouse, _verified(warehouse, upload, stored), size, body, policy=policy))


def confirm_later(
    records: Records, warehouse: Warehouse, bucket: Bucket, confirmations: Sequence[UploadConfirmation], *, policy: Policy | None
) -> Task:
    """A task that confirms several uploads, each for itself. Raises NotFound when one is unknown; nothing is recorded then."""
    for one in confirmations:
        records.uploads.get(one.upload_id, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)
    inputs = {
        "namespace_id": bucket.namespace_id,
        "confirmations": [one.model_dump(mode="json") for one in confirmations],
        "policy": policy,
    }
    return add_task(records, TaskType.CONFIRM_UPLOADS, inputs, namespace_id=bucket.namespace_id, now=warehouse.now())


def confirm_task(warehouse: Warehouse, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The work of both kinds of confirmation task."""
    succeeded, failed = [], []
    for given in inputs["confirmations"]:
        body = UploadConfirmation.model_validate(given)
        try:
            with warehouse.catalog.reading() as records:
                upload = records.uploads.get(body.upload_id, namespace_id=NamespaceId(inputs["namespace_id"]))
            if upload.status is not UploadStatus.COMPLETED:
                stored = warehouse.blobs.head(upload.key)
                size = _check(warehouse, upload, stored, body)
                verified = _verified(warehouse, upload, stored)
                upload = _complete(warehouse, verified, size, body, policy=inputs.get("policy"))
            succeeded.append({"upload_id": upload.upload_id, "object_id": upload.object_id})
        except MixpeekError as error:
            failed.append({"upload_id": body.upload_id, "error": error.message, "error_type": error.type})
            _fail(warehouse, body.upload_id, error.message)
    return {"succeeded": succeeded, "failed": failed, "succeeded_count": len(succeeded), "failed_count": len(failed)}


def _check(warehouse: Warehouse, upload: Upload, stored: StoredFile | None, body: UploadConfirm) -> int:
    """The file's size, once it is what both sides said. A file that a client put wrongly, where it can put only once, is removed."""
    if not upload.status.is_open:
        raise WrongState(f"Upload {upload.upload_id} is {upload.status}; announce the file again.")
    if upload.expires_at < warehouse.now() and upload.status is not UploadStatus.PROCESSING:
        raise WrongState(f"Upload {upload.upload_id} expired at {upload.expires_at}; announce the file again.")
    etag = stored.etag if stored and warehouse.blobs.is_remote else upload.stored_etag
    if stored is None or etag is None:
        raise WrongState(f"Upload {upload.upload_id} has no file yet: PUT it to the presigned_url, then confirm.")
    size = stored.size
    try:
        for wanted in (upload.file_size_bytes, body.file_size_bytes):
            if wanted is not None and wanted != size:
                raise BadRequest(f"Upload {upload.upload_id} has {size} bytes, not {wanted}.")
        if size > warehouse.settings.max_upload_bytes:
            raise BadRequest(f"Upload {upload.upload_id} has {size} bytes, more than this server takes.")
        if body.etag is not None and body.etag.removeprefix("W/").strip('"') != etag:
            raise BadRequest(f"Upload {upload.upload_id} has another ETag than {body.etag}.")
    except BadRequest:
        _let_put_again(warehouse, upload)
        raise
    return size


def _verified(warehouse: Warehouse, upload: Upload, stored: StoredFile | None) -> Upload:
    """The upload with what arrived, once its hash is the one that was announced. A file that we did not receive is read for that."""
    if warehouse.blobs.is_remote and stored is not None:
        digest = stored.sha256
        if not digest:
            with warehouse.blobs.open(upload.key) as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # a body that can be read
        upload = upload.model_copy(update={"stored_etag": stored.etag, "stored_hash": digest})
    if upload.file_hash is not None and upload.file_hash != upload.stored_hash:
        _let_put_again(warehouse, upload)
        raise BadRequest(f"Upload {upload.upload_id} has another SHA-256 than was announced.")
    return upload


def _let_put_again(warehouse: Warehouse, upload: Upload) -> None:
    if warehouse.blobs.is_remote:  # the bytes are no good
        warehouse.blobs.delete(upload.landing_key)


def _kept(warehouse: Warehouse, upload: Upload) -> Upload:
    """The upload with the file that was verified out of the client's reach: its URL can put another one until it expires."""
    if not warehouse.blobs.is_remote:
        return upload
    kept = upload.model_copy(update={"is_kept": True})
    warehouse.blobs.copy(upload.landing_key, kept.key, etag=upload.stored_etag or "")
    return kept


def _complete(warehouse: Warehouse, upload: Upload, size: int, body: UploadConfirm, *, policy: Policy | None) -> Upload:
    try:
        upload = _kept(warehouse, upload)
    except (FileNotFoundError, Changed) as error:
        with warehouse.catalog.reading() as records:
            current = records.uploads.get(upload.upload_id)
        if not current.status.is_open:  # another confirmation was faster
            return current
        raise WrongState(f"The file of upload {upload.upload_id} was put again meanwhile: confirm it again.") from error
    with warehouse.catalog.reading() as records:
        bucket = _without_required_blobs(records.buckets.get(upload.bucket_id, namespace_id=upload.namespace_id))
    arrived = {"stored_etag": upload.stored_etag, "stored_hash": upload.stored_hash, "is_kept": upload.is_kept}
    with warehouse.catalog.transaction() as records:
        records.uploads.hold(upload.upload_id)
        upload = records.uploads.get(upload.upload_id)
        if not upload.status.is_open:  # another confirmation was faster, or it was given up
            return upload
        now = warehouse.now()
        done: dict[str, Any] = {"status": UploadStatus.COMPLETED, "file_size_bytes": size, "file_hash": arrived["stored_hash"]}
        done |= arrived
        upload = upload.model_copy(update={**done, "verified_at": now, "completed_at": now, "updated_at": now})
        if upload.create_object_on_confirm and upload.blob_property and upload.blob_type:
            blob = blob_of(upload, property=upload.blob_property, type=FieldType(upload.blob_type))
            made = ObjectCreate(metadata=upload.object_metadata or {})
            stored = register(records, warehouse, bucket, made, [blob], policy=policy)
            batch_id = _submit(records, warehouse, bucket, stored.object_id, now=now) if body.auto_submit_batch else None
            upload = upload.model_copy(update={"object_id": stored.object_id, "batch_id": batch_id})
        records.uploads.put(upload)
    if upload.is_kept:
        warehouse.blobs.delete(upload.landing_key)
    return upload


def _submit(records: Records, warehouse: Warehouse, bucket: Bucket, object_id: ObjectId, *, now: str) -> str:
    batch = create_batch(records, [object_id], namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id, now=now)
    return submit(records, batch, settings=warehouse.settings, now=now).batch_id


def _without_required_blobs(bucket: Bucket) -> Bucket:
    """An upload brings one file: other blobs that the schema requires are not asked of it, required metadata is."""
    properties = {
        name: field.model_copy(update={"required": False}) if field.type.is_blob else field
        for name, field in bucket.bucket_schema.properties.items()
    }
    return bucket.model_copy(update={"bucket_schema": BucketSchema(properties=properties)})


def _fail(warehouse: Warehouse, upload_id: str, reason: str) -> None:
    with warehouse.catalog.transaction() as records:
        records.uploads.hold(upload_id)
        upload = records.uploads.get(upload_id)
        if upload.status is UploadStatus.PROCESSING:
            failed = {"status": UploadStatus.FAILED, "message": reason, "updated_at": warehouse.now()}
            records.uploads.put(upload.model_copy(update=failed))


def delete_upload(warehouse: Warehouse, bucket: Bucket, upload_id: str) -> None:
    """Forget an upload and its file, unless the object that was made from it has taken the file over."""
    with warehouse.catalog.transaction() as records:
        records.uploads.hold(upload_id)
        upload = records.uploads.get(upload_id, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)
        is_taken = upload.object_id is not None and upload.object_id in records.objects.named([upload.object_id])
        records.uploads.remove(upload.upload_id)
    for key in {upload.landing_key, upload.key} - ({upload.key} if is_taken else set()):
        warehouse.blobs.delete(key)


@dataclass(frozen=True)
class Swept:
    """How many uploads were given up, and why others were not, if the blob store did not let them."""

    uploads: int = 0
    problem: str = ""


def sweep_uploads(warehouse: Warehouse, *, limit: int = 500) -> Swept:
    """Give up uploads that were not confirmed within an hour of their end, and remove their files and what killed writers left. Files
    that were put once more at the URL of a confirmed upload go too.
    """
    try:
        blobs = warehouse.blobs
        blobs.remove_leftovers()
    except (MixpeekError, OSError) as error:
        return Swept(problem=str(error))
    with warehouse.catalog.reading() as records:
        late = records.uploads.late(before=warehouse.now(plus_s=-SWEEP_AFTER_S), limit=limit, completed=blobs.is_remote)
    swept, problem = 0, ""
    for upload in late:
        try:
            if upload.status is not UploadStatus.COMPLETED or upload.is_kept:
                blobs.delete(upload.landing_key)  # before it is written down: after a crash it is swept again
        except (ProviderError, OSError) as error:
            problem = str(error)
            if isinstance(error, ProviderDown):
                break
            continue
        with warehouse.catalog.transaction() as records:
            swept += records.uploads.give_up(upload.upload_id, now=warehouse.now())
    return Swept(swept, problem)


class _Stream(io.BufferedReader):
    """Chunks as a file that is read once."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__(_Raw(iter(chunks)), buffer_size=256 * 1024)


class _Raw(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = chunk
        view = memoryview(buffer)
        taken, self._left = self._left[: len(view)], self._left[len(view) :]
        view[: len(taken)] = taken
        return len(taken)
