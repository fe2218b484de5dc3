"""`/v1/buckets`: containers of raw files with a schema."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import BackgroundTasks, Body, Query
from pydantic import BaseModel

from mixpeek_dagster.api.deps import InBucket, InNamespace, Opened
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination, select_page
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.tasks import TaskAnswer, task_answer
from mixpeek_dagster.models.buckets import Bucket, BucketCreate, BucketPatch, UniqueKey
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.tasks import TaskType
from mixpeek_dagster.pipeline import buckets as pipeline
from mixpeek_dagster.pipeline.creation import create_bucket
from mixpeek_dagster.pipeline.tasks import add_task, run_task
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("buckets")


class BatchStats(BaseModel):
    """How many batches the bucket has had, by how they are."""

    total: int = 0
    active: int = 0
    completed: int = 0
    failed: int = 0


class StorageStats(BaseModel):
    """Bytes of the bucket's objects."""

    total_size_bytes: int = 0
    avg_size_bytes: int = 0
    max_size_bytes: int = 0
    min_size_bytes: int = 0


class BucketAnswer(BaseModel):
    """A bucket, with running totals."""

    bucket_id: str
    namespace_id: str
    bucket_name: str
    description: str | None = None
    bucket_schema: dict[str, Any]
    unique_key: UniqueKey | None = None
    metadata: dict[str, Any] | None = None
    object_count: int
    failed_object_count: int = 0
    total_size_bytes: int
    created_at: str
    updated_at: str
    last_upload_at: str | None = None
    stats_updated_at: str | None = None
    status: str = "ACTIVE"
    is_locked: bool = False
    batch_stats: BatchStats = BatchStats()
    storage_stats: StorageStats = StorageStats()


class BucketList(BaseModel):
    """One page of buckets."""

    results: list[BucketAnswer]
    total_count: int
    pagination: Pagination
    stats: dict[str, Any]
    warnings: list[Any] = []


class BucketDeletion(TaskAnswer):
    """The task that deletes a bucket."""

    bucket_id: str
    bucket_name: str
    object_count: int
    message: str = "The bucket is being deleted; poll the task."


@router.post("/buckets")
def create(body: BucketCreate, warehouse: Opened, namespace: InNamespace) -> BucketAnswer:
    """Make a bucket. 409 when the name is taken."""
    with warehouse.catalog.transaction() as records:
        return answer(create_bucket(records, body, namespace_id=namespace.namespace_id, now=warehouse.now()), {})


@router.get("/buckets")
def list_by_query(
    warehouse: Opened, namespace: InNamespace, asked: Asked, search: Annotated[str | None, Query(max_length=1000)] = None
) -> BucketList:
    """List buckets, oldest first."""
    return _list(warehouse, namespace, Paging.of(asked), PageBody(search=search))


@router.post("/buckets/list")
def list_by_body(
    warehouse: Opened, namespace: InNamespace, asked: Asked, body: Annotated[PageBody | None, Body()] = None
) -> BucketList:
    """List buckets with filters, search and sorting."""
    return _list(warehouse, namespace, Paging.of(asked, body), body or PageBody())


@router.get("/buckets/{bucket_identifier}")
def get(warehouse: Opened, bucket: InBucket) -> BucketAnswer:
    """Read a bucket by id or name."""
    return _detailed(warehouse, bucket)


@router.patch("/buckets/{bucket_identifier}")
@router.put("/buckets/{bucket_identifier}")
def change(warehouse: Opened, bucket: InBucket, body: BucketPatch, force_schema_break: bool = False) -> BucketAnswer:
    """Change what the body names. A schema that breaks what objects have needs `force_schema_break`."""
    return _detailed(warehouse, pipeline.change_bucket(warehouse, bucket, body, force_schema_break=force_schema_break))


@router.delete("/buckets/{bucket_identifier}")
def delete(warehouse: Opened, bucket: InBucket, later: BackgroundTasks, force_foreclose: bool = False) -> BucketDeletion:
    """Delete a bucket with its objects and their documents, as a task."""
    with warehouse.catalog.transaction() as records:
        pipeline.check_removable(records, bucket, force=force_foreclose)
        inputs = {"bucket_id": bucket.bucket_id, "namespace_id": bucket.namespace_id}
        task = add_task(records, TaskType.DELETE_BUCKET, inputs, namespace_id=bucket.namespace_id, now=warehouse.now())
    later.add_task(run_task, warehouse, task.task_id)
    own = {"bucket_id": bucket.bucket_id, "bucket_name": bucket.bucket_name, "object_count": bucket.object_count}
    return BucketDeletion(**task_answer(task).model_dump(), **own)


def answer(bucket: Bucket, stats: Mapping[str, Any]) -> BucketAnswer:
    """A bucket as clients see it."""
    schema = bucket.bucket_schema.model_dump(mode="json", exclude_none=True)
    size = {"total_size_bytes": bucket.total_size_bytes, "avg_size_bytes": bucket.total_size_bytes // max(1, bucket.object_count)}
    storage = StorageStats(**{**size, **stats.get("storage", {})})
    own = bucket.model_dump(exclude={"bucket_schema", "unique_key"})
    more = {name: value for name, value in stats.items() if name != "storage"}
    return BucketAnswer(
        **own,
        bucket_schema=schema,
        unique_key=bucket.unique_key,
        storage_stats=storage,
        stats_updated_at=bucket.updated_at,
        **more,
    )


def _detailed(warehouse: Warehouse, bucket: Bucket) -> BucketAnswer:
    with warehouse.catalog.reading() as records:
        current = records.buckets.get(bucket.bucket_id, namespace_id=bucket.namespace_id)
        return answer(current, records.buckets.stats(bucket.bucket_id))


def _list(warehouse: Warehouse, namespace: Namespace, paging: Paging, body: PageBody) -> BucketList:
    with warehouse.catalog.reading() as records:
        every = records.buckets.all(namespace.namespace_id)
        found, total = select_page(
            every,
            paging,
            body,
            record=lambda one: one.model_dump(mode="json"),
            text=lambda one: f"{one.bucket_name}\n{one.description or ''}",
        )
    objects, size = sum(one.object_count for one in every), sum(one.total_size_bytes for one in every)
    count = max(1, len(every))
    stats: dict[str, float] = {"total_objects": objects, "total_size_bytes": size}
    stats |= {"avg_objects_per_bucket": objects / count, "avg_size_per_bucket": size / count}
    results = [answer(one, {}) for one in found]
    block = pagination(paging, total=total, returned=len(results))
    return BucketList(results=results, total_count=total, pagination=block, stats=stats)
