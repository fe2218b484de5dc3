"""`/v1/buckets/{b}/uploads`: files that clients put into managed storage through a signed URL, and then confirm."""

from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Annotated, Any

import anyio.from_thread
from fastapi import APIRouter, BackgroundTasks, Body, Path, Query, Request, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from mixpeek_dagster.api.blobs import base_url
from mixpeek_dagster.api.deps import InBucket, InNamespace, Opened
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.tasks import TaskAnswer, task_answer
from mixpeek_dagster.catalog.lists import Listing
from mixpeek_dagster.models.buckets import Policy
from mixpeek_dagster.models.filters import field_path
from mixpeek_dagster.models.uploads import Upload, UploadBatch, UploadConfirm, UploadConfirmations, UploadCreate, UploadStatus
from mixpeek_dagster.pipeline import uploads as pipeline
from mixpeek_dagster.pipeline.signing import check_signature, sign
from mixpeek_dagster.pipeline.tasks import run_task
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("uploads")
signed = APIRouter(prefix="/v1", tags=["signed"])
SIGNED_AT_ONCE = 16
UploadId = Annotated[str, Path(min_length=1, max_length=100)]
InBackground = Annotated[bool | None, Query(alias="async", description="Confirm as a task; files above 100 MB always are")]


class UploadAnswer(BaseModel):
    """An upload. PUT the file to `presigned_url`, with the same Content-Type and the `required_headers`, then confirm."""

    upload_id: str
    bucket_id: str
    filename: str
    content_type: str
    file_size_bytes: int | None = None
    presigned_url: str | None = None
    required_headers: dict[str, str] = {}
    presigned_url_expiration: int
    s3_key: str
    status: str
    metadata: dict[str, Any] | None = None
    create_object_on_confirm: bool
    object_metadata: dict[str, Any] | None = None
    blob_property: str | None = None
    blob_type: str | None = None
    file_hash: str | None = None
    skip_duplicates: bool = True
    is_duplicate: bool = False
    duplicate_of_upload_id: str | None = None
    skipped_unique_key: bool = False
    existing_object_id: str | None = None
    message: str | None = None
    created_at: str
    expires_at: str
    completed_at: str | None = None
    verified_at: str | None = None
    etag: str | None = None
    object_id: str | None = None
    task_id: str | None = None


class UploadBatchAnswer(BaseModel):
    """Several uploads, in the order they were asked for."""

    uploads: list[UploadAnswer]
    total: int


class ConfirmAnswer(BaseModel):
    """What a confirmation found and made."""

    upload_id: str
    status: str
    etag: str | None = None
    file_size_bytes: int | None = None
    file_hash: str | None = None
    verified_at: str | None = None
    completed_at: str | None = None
    object_id: str | None = None
    task_id: str | None = None
    batch_id: str | None = None
    message: str | None = None


class BatchConfirmAnswer(BaseModel):
    """The task that confirms several uploads."""

    task_id: str
    status: str
    confirmations_count: int
    task: TaskAnswer
    message: str = "Batch confirmation is being processed in the background."


class UploadStats(BaseModel):
    """Totals over every upload that matches."""

    total_uploads: int
    total_size_bytes: int
    uploads_by_status: dict[str, int]
    avg_file_size_bytes: float
    unique_buckets: int


class UploadList(BaseModel):
    """One page of uploads."""

    results: list[UploadAnswer]
    pagination: Pagination
    stats: UploadStats


class UploadPageBody(PageBody):
    """Which uploads to list."""

    return_presigned_urls: bool = False


@router.post("/buckets/{bucket_identifier}/uploads")
def create(request: Request, body: UploadCreate, warehouse: Opened, bucket: InBucket) -> UploadAnswer:
    """Announce a file; the answer says where to PUT it."""
    (upload,) = pipeline.announce(warehouse, bucket, [body])
    return answer(upload, request, warehouse, with_url=True)


@router.post("/buckets/{bucket_identifier}/uploads/batch")
def create_many(request: Request, body: UploadBatch, warehouse: Opened, bucket: InBucket) -> UploadBatchAnswer:
    """Announce up to 100 files, all of them or none."""
    uploads = _answers(pipeline.announce(warehouse, bucket, body.each()), request, warehouse, with_urls=True)
    return UploadBatchAnswer(uploads=uploads, total=len(uploads))


@router.post("/buckets/{bucket_identifier}/uploads/confirm/batch")
def confirm_many(
    body: UploadConfirmations, warehouse: Opened, bucket: InBucket, later: BackgroundTasks, policy: Policy | None = None
) -> BatchConfirmAnswer:
    """Confirm up to 100 uploads as a task."""
    with warehouse.catalog.transaction() as records:
        task = pipeline.confirm_later(records, warehouse, bucket, body.confirmations, policy=policy)
    later.add_task(run_task, warehouse, task.task_id)
    count = len(body.confirmations)
    return BatchConfirmAnswer(task_id=task.task_id, status=task.status, confirmations_count=count, task=task_answer(task))


@router.post("/buckets/{bucket_identifier}/uploads/list")
def list_by_body(
    request: Request, warehouse: Opened, bucket: InBucket, asked: Asked, body: Annotated[UploadPageBody | None, Body()] = None
) -> UploadList:
    """List uploads, newest first."""
    body = body or UploadPageBody()
    paging = Paging.of(asked, body, default=20)
    with warehouse.catalog.transaction() as records:
        records.uploads.expire(bucket.bucket_id, now=warehouse.now())
        found, stats = records.uploads.page(bucket.bucket_id, _listing(paging, body))
    results = _answers(found, request, warehouse, with_urls=body.return_presigned_urls)
    block = pagination(paging, total=stats["total_uploads"], returned=len(results))
    return UploadList(results=results, pagination=block, stats=UploadStats(**stats))


@router.get("/buckets/{bucket_identifier}/uploads/{upload_id}")
def get(request: Request, upload_id: UploadId, warehouse: Opened, bucket: InBucket) -> UploadAnswer:
    """Read an upload."""
    with warehouse.catalog.reading() as records:
        upload = records.uploads.get(upload_id, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)
    return answer(upload, request, warehouse, with_url=upload.status is UploadStatus.PENDING)


@router.post("/buckets/{bucket_identifier}/uploads/{upload_id}/confirm")
def confirm(
    upload_id: UploadId,
    warehouse: Opened,
    bucket: InBucket,
    later: BackgroundTasks,
    body: Annotated[UploadConfirm | None, Body()] = None,
    policy: Policy | None = None,
    in_background: InBackground = None,
) -> ConfirmAnswer:
    """Check the file that was sent, and make its object."""
    given, how = body or UploadConfirm(), {"policy": policy, "in_background": in_background}
    done = pipeline.confirm(warehouse, bucket.namespace_id, upload_id, given, bucket_id=bucket.bucket_id, **how)  # type: ignore[arg-type]  # one dict for both
    return _confirmed(done, warehouse, later)


@router.post("/uploads/{upload_id}/confirm")
def confirm_anywhere(
    upload_id: UploadId,
    warehouse: Opened,
    namespace: InNamespace,
    later: BackgroundTasks,
    body: Annotated[UploadConfirm | None, Body()] = None,
    policy: Policy | None = None,
    in_background: InBackground = None,
) -> ConfirmAnswer:
    """The same, without naming the bucket."""
    given, how = body or UploadConfirm(), {"policy": policy, "in_background": in_background}
    done = pipeline.confirm(warehouse, namespace.namespace_id, upload_id, given, **how)  # type: ignore[arg-type]  # one dict for both
    return _confirmed(done, warehouse, later)


@router.delete("/buckets/{bucket_identifier}/uploads/{upload_id}", status_code=204, response_class=Response)
def delete(upload_id: UploadId, warehouse: Opened, bucket: InBucket) -> None:
    """Forget an upload and its file, unless an object was made from it: the file goes with that."""
    pipeline.delete_upload(warehouse, bucket, upload_id)


@signed.put("/uploads/{upload_id}/blob")
async def receive(
    request: Request,
    upload_id: UploadId,
    expires: Annotated[int, Query(ge=0, lt=2**40)],
    signature: Annotated[str, Query(max_length=200)],
    warehouse: Opened,
) -> Response:
    """Take the bytes of an upload; the signature in the URL is the permission."""
    check_signature("PUT", request.url.path, expires=expires, signature=signature, settings=warehouse.settings)
    chunks = _in_thread(request.stream())
    stored = await run_in_threadpool(pipeline.receive, warehouse, upload_id, request.headers.get("content-type"), chunks)
    return Response(status_code=200, headers={"ETag": f'"{stored.sha256}"'})


def answer(upload: Upload, request: Request, warehouse: Warehouse, *, with_url: bool) -> UploadAnswer:
    """An upload as clients see it."""
    own = upload.model_dump(mode="json", include=set(UploadAnswer.model_fields))
    if upload.status in (UploadStatus.PENDING, UploadStatus.IN_PROGRESS) and upload.expires_at < warehouse.now():
        own["status"] = UploadStatus.FAILED.value
    elif with_url and upload.status in (UploadStatus.PENDING, UploadStatus.IN_PROGRESS):
        own |= _where_to_put(upload, request, warehouse)
    existing = upload.object_id if upload.is_duplicate else None
    return UploadAnswer(**own, s3_key=upload.key, etag=upload.stored_etag, existing_object_id=existing)


def _answers(uploads: Sequence[Upload], request: Request, warehouse: Warehouse, *, with_urls: bool) -> list[UploadAnswer]:
    one = partial(answer, request=request, warehouse=warehouse, with_url=with_urls)
    if not (with_urls and warehouse.blobs.is_remote):
        return [one(upload) for upload in uploads]
    with ThreadPoolExecutor(SIGNED_AT_ONCE, thread_name_prefix="sign-urls") as pool:  # a request each, where Google's IAM signs
        return list(pool.map(one, uploads))


def _where_to_put(upload: Upload, request: Request, warehouse: Warehouse) -> dict[str, Any]:
    if warehouse.blobs.is_remote:
        kind, size = upload.content_type, upload.file_size_bytes
        most = warehouse.settings.max_upload_bytes
        url = warehouse.blobs.presign_put(
            upload.key, expires_s=upload.presigned_url_expiration, content_type=kind, size=size, max_bytes=most
        )
        return {"presigned_url": url.url, "required_headers": url.headers}
    path = f"/v1/uploads/{upload.upload_id}/blob"
    signed_path = sign("PUT", path, expires_s=upload.presigned_url_expiration, settings=warehouse.settings)
    return {
        "presigned_url": base_url(request, warehouse) + signed_path,
        "required_headers": {"Content-Type": upload.content_type},
    }


def _confirmed(done: pipeline.Confirmed, warehouse: Warehouse, later: BackgroundTasks) -> ConfirmAnswer:
    if done.task is not None:
        later.add_task(run_task, warehouse, done.task.task_id)
    own = done.upload.model_dump(mode="json", include=set(ConfirmAnswer.model_fields))
    return ConfirmAnswer(**own, etag=done.upload.stored_etag)


def _listing(paging: Paging, body: UploadPageBody) -> Listing:
    for one in body.sorting:
        field_path(one.field, "sort.field")
    return Listing(
        filter=body.parsed_filters(),
        search=body.search,
        sort=[(one.field, one.direction == "desc") for one in body.sorting],
        limit=paging.limit,
        offset=paging.offset,
    )


def _in_thread(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """An asynchronous stream, read from a worker thread."""

    async def following() -> bytes | None:
        return await anext(stream, None)

    while (chunk := anyio.from_thread.run(following)) is not None:
        yield chunk
