"""Many batches at once: submit a whole bucket, or all drafts; and the queue of the namespace."""

from typing import Annotated

from fastapi import Body
from pydantic import BaseModel

from mixpeek_dagster.api.deps import InBucket, InNamespace, Opened
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.models.batches import Batch
from mixpeek_dagster.pipeline import batch_groups as pipeline

router = new_router("batches")


class SubmittedBatch(BaseModel):
    """One of the batches: QUEUED, or a DRAFT that could not be submitted, with the reason."""

    batch_id: str
    status: str
    object_count: int
    task_id: str | None = None
    error: str | None = None


class BulkAnswer(BaseModel):
    """The batches that a bucket was cut into."""

    batch_group_id: str
    total_objects: int
    total_batches: int
    submitted: int
    failed: int
    chunk_size: int
    batches: list[SubmittedBatch]


class DraftsAnswer(BaseModel):
    """What became of the drafts of a bucket."""

    submitted: int
    failed: int
    batches: list[SubmittedBatch]


class QueuedBatch(BaseModel):
    """A batch that is processed, or that waits at `queue_position`, from 1."""

    batch_id: str
    bucket_id: str | None
    status: str
    object_count: int
    submitted_at: str | None
    started_at: str | None
    queue_position: int | None = None


class Queue(BaseModel):
    """The work of the namespace: what is being processed, and what waits, in order."""

    active_count: int
    waiting_count: int
    active: list[QueuedBatch]
    waiting: list[QueuedBatch]


@router.post("/buckets/{bucket_identifier}/batches/bulk-submit")
def bulk_submit(warehouse: Opened, bucket: InBucket, body: Annotated[pipeline.BulkSubmit | None, Body()] = None) -> BulkAnswer:
    """Cut the bucket's objects, all or those that pass a filter, into batches and submit each."""
    body = body or pipeline.BulkSubmit()
    group, done = pipeline.bulk_submit(warehouse, bucket, body)
    batches = [_submitted(one) for one in done]
    return BulkAnswer(
        batch_group_id=group,
        total_objects=sum(one.object_count for one in batches),
        total_batches=len(batches),
        submitted=sum(one.error is None for one in batches),
        failed=sum(one.error is not None for one in batches),
        chunk_size=body.chunk_size,
        batches=batches,
    )


@router.post("/buckets/{bucket_identifier}/batches/submit-all")
def submit_all(warehouse: Opened, bucket: InBucket) -> DraftsAnswer:
    """Submit every DRAFT of the bucket; one that cannot be submitted keeps no other back."""
    batches = [_submitted(one) for one in pipeline.submit_drafts(warehouse, bucket)]
    failed = sum(one.error is not None for one in batches)
    return DraftsAnswer(submitted=len(batches) - failed, failed=failed, batches=batches)


@router.get("/batches/queue")
def queue(warehouse: Opened, namespace: InNamespace) -> Queue:
    """What is being processed in the namespace, and what waits."""
    running, waiting = pipeline.queue(warehouse, namespace.namespace_id)
    return Queue(
        active_count=len(running),
        waiting_count=len(waiting),
        active=[_queued(one, None) for one in running],
        waiting=[_queued(one, place) for place, one in enumerate(waiting, 1)],
    )


def _submitted(one: pipeline.Submitted) -> SubmittedBatch:
    batch = one.batch
    return SubmittedBatch(
        batch_id=batch.batch_id,
        status=batch.status,
        object_count=batch.item_count,
        task_id=batch.task_id,
        error=one.error,
    )


def _queued(batch: Batch, place: int | None) -> QueuedBatch:
    own = batch.model_dump(include={"batch_id", "bucket_id", "submitted_at", "started_at"})
    return QueuedBatch(**own, status=batch.status, object_count=batch.item_count, queue_position=place)
