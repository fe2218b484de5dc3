"""`/v1/buckets/{b}/batches` and `/v1/batches`: groups of objects, submitted for extraction."""

from typing import Annotated, Any, Literal

from fastapi import Body, Depends, Path, Query
from pydantic import BaseModel, Field

from mixpeek_dagster.api.batch_answers import BatchAnswer, BatchList, FailureAnswer, answer, failure, task_of
from mixpeek_dagster.api.deps import InBucket, InNamespace, Opened
from mixpeek_dagster.api.documents import Deleted
from mixpeek_dagster.api.paging import PageBody, PageQuery, Pagination, Paging, pagination
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.tasks import TaskAnswer
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.models.batches import Batch, BatchStatus
from mixpeek_dagster.models.ids import BucketId, NamespaceId
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline import batch_requests as pipeline
from mixpeek_dagster.pipeline.batches import cancel
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("batches")
TierNumber = Annotated[int, Path(ge=0, le=1000)]
BatchPath = Annotated[str, Path(min_length=1, max_length=255, description="Batch id")]
Status = Literal[
    "PENDING",
    "QUEUED",
    "IN_PROGRESS",
    "PROCESSING",
    "COMPLETED",
    "COMPLETED_WITH_ERRORS",
    "FAILED",
    "CANCELED",
    "INTERRUPTED",
    "UNKNOWN",
    "SKIPPED",
    "DRAFT",
    "ACTIVE",
    "ARCHIVED",
    "SUSPENDED",
    "DEACTIVATED",
]
MEANT: dict[str, list[BatchStatus]] = {
    **{status.value: [status] for status in BatchStatus},
    "PENDING": [BatchStatus.QUEUED],
    "IN_PROGRESS": [BatchStatus.PROCESSING],
}
"""The statuses of batches that a client means by a word; words that are not here mean none."""


class BatchListBody(Lenient):
    """Which batches. `PENDING` means QUEUED and `IN_PROGRESS` PROCESSING; statuses that batches never have find none."""

    status: Status | None = None
    collection_id: str | None = Field(default=None, max_length=255)
    bucket_id: str | None = Field(default=None, max_length=255)
    offset: int = Field(default=0, ge=0, le=10_000_000)
    limit: int = Field(default=100, ge=1, le=1000)
    cursor: str | None = Field(default=None, max_length=4096)


class BatchObjects(BaseModel):
    """Objects to add."""

    object_ids: list[pipeline.Id] = Field(min_length=1, max_length=100_000)


class FailedDocuments(BaseModel):
    """One page of what failed in a batch, with the reasons."""

    batch_id: str
    failed_documents: list[FailureAnswer]
    results: list[FailureAnswer]
    total: int
    pagination: Pagination


class Again(BaseModel):
    """The batch that does the work again; `original_batch_id` stays as it ended."""

    batch_id: str
    original_batch_id: str
    task_id: str | None = None
    status: str
    object_count: int
    message: str


class DocumentsOfBatch(BaseModel):
    """How many documents of a batch were deleted."""

    batch_id: str
    deleted_count: int
    message: str = "Successfully deleted"


def _in_bucket(warehouse: Opened, bucket: InBucket, batch_id: BatchPath) -> Batch:
    with warehouse.catalog.reading() as records:
        return records.batches.get(batch_id, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)


def _in_namespace(warehouse: Opened, namespace: InNamespace, batch_id: BatchPath) -> Batch:
    with warehouse.catalog.reading() as records:
        return records.batches.get(batch_id, namespace_id=namespace.namespace_id)


InBatch = Annotated[Batch, Depends(_in_bucket)]
AnyBatch = Annotated[Batch, Depends(_in_namespace)]


@router.post("/buckets/{bucket_identifier}/batches")
def create(
    body: pipeline.BatchCreate,
    warehouse: Opened,
    bucket: InBucket,
    auto_submit: bool = False,
    trigger_processing: bool = False,
    skip_validation: bool = False,
) -> BatchAnswer:
    """Make a DRAFT batch of objects, by id or by filter. With `auto_submit` it is submitted at once."""
    now = auto_submit or trigger_processing or body.auto_submit or body.trigger_processing
    return _answer(warehouse, pipeline.make_batch(warehouse, bucket, body, submit_now=now))


@router.post("/buckets/{bucket_identifier}/batches/list")
def list_in_bucket(warehouse: Opened, bucket: InBucket, body: Annotated[BatchListBody | None, Body()] = None) -> BatchList:
    """List the bucket's batches, the newest first."""
    return _list(warehouse, bucket.namespace_id, bucket.bucket_id, body or BatchListBody())


@router.post("/batches/list")
def list_all(warehouse: Opened, namespace: InNamespace, body: Annotated[BatchListBody | None, Body()] = None) -> BatchList:
    """List the namespace's batches, the newest first."""
    body = body or BatchListBody()
    return _list(warehouse, namespace.namespace_id, BucketId(body.bucket_id) if body.bucket_id else None, body)


@router.get("/batches/{batch_id}")
def get_any(warehouse: Opened, batch: AnyBatch) -> BatchAnswer:
    """Read a batch, whichever bucket it is of."""
    return _answer(warehouse, batch)


@router.post("/batches/{batch_id}/cancel")
def cancel_any(warehouse: Opened, batch: AnyBatch, reason: Annotated[str | None, Query(max_length=500)] = None) -> TaskAnswer:
    """Cancel a batch that has not ended."""
    return _cancel(warehouse, batch, reason)


@router.get("/buckets/{bucket_identifier}/batches/{batch_id}")
def get(warehouse: Opened, batch: InBatch) -> BatchAnswer:
    """Read a batch."""
    return _answer(warehouse, batch)


@router.patch("/buckets/{bucket_identifier}/batches/{batch_id}")
def patch(body: pipeline.BatchPatch, warehouse: Opened, batch: InBatch) -> BatchAnswer:
    """Change the metadata or the name."""
    given: dict[str, Any] = {name: value for name, value in body if value is not None}
    with warehouse.catalog.transaction() as records:
        records.batches.set(batch.batch_id, now=warehouse.now(), **given)
        return answer(records, records.batches.get(batch.batch_id))


@router.delete("/buckets/{bucket_identifier}/batches/{batch_id}")
def delete(warehouse: Opened, batch: InBatch) -> Deleted:
    """Forget a batch that is not under way; its documents stay."""
    pipeline.delete_batch(warehouse, batch)
    return Deleted()


@router.post("/buckets/{bucket_identifier}/batches/{batch_id}/objects")
def add_objects(body: BatchObjects, batch_id: BatchPath, warehouse: Opened, bucket: InBucket) -> BatchAnswer:
    """Add objects to a DRAFT batch."""
    return _answer(warehouse, pipeline.add_objects(warehouse, bucket, batch_id, body.object_ids))


@router.post("/buckets/{bucket_identifier}/batches/{batch_id}/submit")
def submit(
    warehouse: Opened, batch: InBatch, body: Annotated[pipeline.BatchSubmit | None, Body()] = None, force: bool = False
) -> TaskAnswer:
    """Submit a DRAFT batch: it is QUEUED until a run takes it. With `force` also while another one does the same work."""
    return task_of(pipeline.submit_batch(warehouse, batch, body or pipeline.BatchSubmit(), force=force))


@router.post("/buckets/{bucket_identifier}/batches/{batch_id}/cancel")
def cancel_one(warehouse: Opened, batch: InBatch, reason: Annotated[str | None, Query(max_length=500)] = None) -> TaskAnswer:
    """Cancel a batch that has not ended."""
    return _cancel(warehouse, batch, reason)


@router.post("/buckets/{bucket_identifier}/batches/{batch_id}/retry")
def retry(warehouse: Opened, batch: InBatch, body: Annotated[pipeline.BatchRetry | None, Body()] = None) -> Again:
    """Do what failed again, in a new batch; what succeeded is not touched."""
    return _retried(warehouse, batch, body or pipeline.BatchRetry())


@router.post("/buckets/{bucket_identifier}/batches/{batch_id}/tiers/{tier_num}/retry")
def retry_tier(warehouse: Opened, batch: InBatch, tier_num: TierNumber) -> Again:
    """The same, for what failed in one tier."""
    if tier_num >= len(batch.dag_tiers):
        raise NotFound(f"Batch {batch.batch_id} has no tier {tier_num}; it has {len(batch.dag_tiers)}, numbered from 0.")
    return _retried(warehouse, batch, pipeline.BatchRetry(tier_nums=[tier_num]))


@router.post("/buckets/{bucket_identifier}/batches/{batch_id}/resubmit")
def resubmit(warehouse: Opened, batch: InBatch, auto_submit: bool = True, trigger_processing: bool = True) -> Again:
    """Do all of an ended batch again, in a new one whose documents take the place of the old."""
    again = pipeline.resubmit(warehouse, batch, submit_now=auto_submit and trigger_processing)
    return _again(batch, again, f"Resubmitted as batch {again.batch_id}.")


@router.get("/buckets/{bucket_identifier}/batches/{batch_id}/failed-documents")
def failed_documents(
    warehouse: Opened,
    batch: InBatch,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    tier_num: Annotated[int | None, Query(ge=0, le=1000)] = None,
    collection_id: Annotated[str | None, Query(max_length=255, description="Collection id")] = None,
) -> FailedDocuments:
    """What failed, and why; in one tier or one collection when it is named."""
    wanted: list[str] | None = None
    if tier_num is not None:
        wanted = [one for tier in batch.dag_tiers[tier_num : tier_num + 1] for one in tier]
    if collection_id is not None:
        wanted = [collection_id] if wanted is None or collection_id in wanted else []
    with warehouse.catalog.reading() as records:
        found, total = records.batches.failures(batch.batch_id, collection_ids=wanted, limit=limit, offset=offset)
    rows = [failure(one) for one in found]
    block = pagination(Paging(limit=limit, offset=offset), total=total, returned=len(rows))
    return FailedDocuments(batch_id=batch.batch_id, failed_documents=rows, results=rows, total=total, pagination=block)


@router.delete("/buckets/{bucket_identifier}/batches/{batch_id}/documents")
def delete_documents(warehouse: Opened, batch: InBatch) -> DocumentsOfBatch:
    """Delete what a batch that has ended wrote, with everything made from it; the batch and its objects stay."""
    count = pipeline.delete_documents(warehouse, batch)
    return DocumentsOfBatch(batch_id=batch.batch_id, deleted_count=count)


def _answer(warehouse: Warehouse, batch: Batch) -> BatchAnswer:
    with warehouse.catalog.reading() as records:
        return answer(records, batch)


def _cancel(warehouse: Warehouse, batch: Batch, reason: str | None) -> TaskAnswer:
    with warehouse.catalog.transaction() as records:
        canceled, runs = cancel(records, batch.batch_id, namespace_id=batch.namespace_id, now=warehouse.now())
    counters = {"ray_jobs_requested": len(runs), "ray_jobs_accepted": len(runs), "ray_jobs_refused": 0}
    return task_of(canceled, cancellation=counters, reason=reason)


def _retried(warehouse: Warehouse, batch: Batch, body: pipeline.BatchRetry) -> Again:
    again = pipeline.retry_failed(warehouse, batch, body)
    if again is None:
        return _again(batch, batch, "Nothing that failed is to be tried again.")
    return _again(batch, again, f"Retrying {again.item_count} objects as batch {again.batch_id}.")


def _again(original: Batch, again: Batch, message: str) -> Again:
    return Again(
        batch_id=again.batch_id,
        original_batch_id=original.batch_id,
        task_id=again.task_id,
        status=again.status,
        object_count=again.item_count,
        message=message,
    )


def _list(warehouse: Warehouse, namespace_id: NamespaceId, bucket_id: BucketId | None, body: BatchListBody) -> BatchList:
    asked = PageQuery(limit=None, page_size=None, offset=None, page=None, cursor=None, next_cursor=None, after=None)
    paging = Paging.of(asked, PageBody(limit=body.limit, offset=body.offset, cursor=body.cursor))
    with warehouse.catalog.reading() as records:
        found, total = records.batches.page(
            namespace_id=namespace_id,
            bucket_id=bucket_id,
            statuses=None if body.status is None else MEANT.get(body.status, []),
            collection_id=body.collection_id,
            limit=paging.limit,
            offset=paging.offset,
        )
        steps = records.batches.steps_of([one.batch_id for one in found])
        results = [answer(records, one, steps=steps.get(one.batch_id, [])) for one in found]
    return BatchList(results=results, total_count=total, pagination=pagination(paging, total=total, returned=len(results)))
