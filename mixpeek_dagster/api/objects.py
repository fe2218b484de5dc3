"""`/v1/buckets/{b}/objects`: raw assets, made of blobs and metadata."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Body, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from mixpeek_dagster.api.blobs import BlobAnswer, BlobView
from mixpeek_dagster.api.collection_documents import AggregationAnswer
from mixpeek_dagster.api.deps import InBucket, Opened
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.catalog.lists import Listing
from mixpeek_dagster.errors import BadRequest
from mixpeek_dagster.models.buckets import Bucket, Policy
from mixpeek_dagster.models.filters import Filter, field_path
from mixpeek_dagster.models.objects import ObjectChange, ObjectCreate, StoredObject
from mixpeek_dagster.pipeline import objects as pipeline
from mixpeek_dagster.pipeline.aggregation import Aggregation, ObjectRows, aggregate
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("objects")
ObjectId = Annotated[str, Path(min_length=1, max_length=255)]
Signed = Annotated[bool, Query(description="Fill in presigned URLs of the blobs")]


class SourceDetail(BaseModel):
    """Where an object came from."""

    type: str
    source_id: str


class ObjectAnswer(BaseModel):
    """An object. Its metadata is at the root, and once more under `metadata`."""

    model_config = ConfigDict(extra="allow")

    object_id: str
    bucket_id: str
    namespace_id: str
    key_prefix: str | None = None
    blobs: list[BlobAnswer] = []
    source_details: list[SourceDetail] = []
    metadata: dict[str, Any] = {}
    status: str
    error: str | None = None
    lifecycle_state: str = "active"
    created_at: str
    updated_at: str
    document_count: int | None = None


class ObjectResult(ObjectAnswer):
    """One of several objects, with its place in the request."""

    object_index: int
    replayed: bool = False
    replayed_by: str | None = None


class ObjectFailure(BaseModel):
    """Why one of several objects was refused."""

    object_index: int
    error: str
    error_type: str


class ObjectBatch(BaseModel):
    """What became of several objects."""

    succeeded: list[ObjectResult]
    failed: list[ObjectFailure]
    total_requested: int
    succeeded_count: int
    failed_count: int


class ObjectBatchCreate(BaseModel):
    """Up to 100 objects; each is registered, or refused, for itself."""

    objects: list[dict[str, Any]] = Field(min_length=1, max_length=100)


class Disabled(BaseModel):
    """How many objects were taken out, and how many collections read from their bucket."""

    soft_deleted: int
    requested: int
    collections: int


class ObjectPageBody(PageBody):
    """Which objects to list."""

    select: Sequence[Annotated[str, Field(min_length=1, max_length=512)]] | None = Field(default=None, max_length=100)
    return_presigned_urls: bool = False


class ObjectList(BaseModel):
    """One page of objects; `stats` are of the page."""

    results: list[dict[str, Any]]
    pagination: Pagination
    stats: dict[str, Any]


@router.post("/buckets/{bucket_identifier}/objects")
def create(
    request: Request,
    body: ObjectCreate,
    warehouse: Opened,
    bucket: InBucket,
    policy: Policy | None = None,
    auto_process: bool = False,
) -> ObjectAnswer:
    """Register an object. With `auto_process` a batch of it is submitted at once."""
    written = pipeline.create_object(warehouse, bucket, body, policy=policy, auto_process=auto_process)
    return answer(written.stored, BlobView(request, warehouse))


@router.post("/buckets/{bucket_identifier}/objects/batch")
def create_many(
    request: Request,
    body: ObjectBatchCreate,
    warehouse: Opened,
    bucket: InBucket,
    policy: Policy | None = None,
    auto_process: bool = False,
) -> ObjectBatch:
    """Register up to 100 objects; what is wrong with one keeps no other out."""
    results = pipeline.create_objects(warehouse, bucket, body.objects, policy=policy, auto_process=auto_process)
    return _batch(results, BlobView(request, warehouse))


@router.post("/buckets/{bucket_identifier}/objects/bulk-soft-delete")
def disable_many(body: pipeline.Disabling, warehouse: Opened, bucket: InBucket) -> Disabled:
    """Keep up to 5000 objects, but delete their documents and process them no more; `lifecycle_state: active` takes that back."""
    count = pipeline.disable_objects(warehouse, bucket, body)
    with warehouse.catalog.reading() as records:
        readers = [one for one in records.collections.all(bucket.namespace_id) if bucket.bucket_id in one.source.bucket_ids]
    return Disabled(soft_deleted=count, requested=len(body.object_ids), collections=len(readers))


@router.post("/buckets/{bucket_identifier}/objects/aggregate")
def aggregate_objects(body: Aggregation, warehouse: Opened, bucket: InBucket) -> AggregationAnswer:
    """Numbers over groups of the bucket's objects."""
    wanted = Filter.parse(_at_root(Filter.parse(body.filters).to_json()))
    return AggregationAnswer(**aggregate(ObjectRows(warehouse, bucket.bucket_id, wanted), body))


@router.get("/buckets/{bucket_identifier}/objects")
def list_by_query(
    request: Request,
    warehouse: Opened,
    bucket: InBucket,
    asked: Asked,
    search: Annotated[str | None, Query(max_length=1000)] = None,
    return_presigned_urls: Signed = False,
) -> ObjectList:
    """List objects, newest first."""
    body = ObjectPageBody(search=search, return_presigned_urls=return_presigned_urls)
    return _list(request, warehouse, bucket, Paging.of(asked), body)


@router.post("/buckets/{bucket_identifier}/objects/list")
def list_by_body(
    request: Request, warehouse: Opened, bucket: InBucket, asked: Asked, body: Annotated[ObjectPageBody | None, Body()] = None
) -> ObjectList:
    """List objects with filters, search, sorting and selected fields."""
    return _list(request, warehouse, bucket, Paging.of(asked, body), body or ObjectPageBody())


@router.get("/buckets/{bucket_identifier}/objects/{object_identifier}")
def get(
    request: Request,
    object_identifier: ObjectId,
    warehouse: Opened,
    bucket: InBucket,
    return_presigned_urls: Signed = False,
    include_document_count: bool = False,
) -> ObjectAnswer:
    """Read an object."""
    with warehouse.catalog.reading() as records:
        stored = records.objects.get(object_identifier, namespace_id=bucket.namespace_id, bucket_id=bucket.bucket_id)
        count = len(records.documents.of_objects([stored.object_id])) if include_document_count else None
        state = records.objects.disabled([stored.object_id]).get(stored.object_id, "active")
    told = answer(stored, BlobView(request, warehouse, signed=return_presigned_urls))
    return told.model_copy(update={"document_count": count, "lifecycle_state": state})


@router.patch("/buckets/{bucket_identifier}/objects/{object_identifier}")
def patch(request: Request, object_identifier: ObjectId, body: ObjectChange, warehouse: Opened, bucket: InBucket) -> ObjectAnswer:
    """Change the metadata that is named; blobs stay."""
    stored = pipeline.change_object(warehouse, bucket, object_identifier, body, replace=False)
    return answer(stored, BlobView(request, warehouse))


@router.put("/buckets/{bucket_identifier}/objects/{object_identifier}")
def put(request: Request, object_identifier: ObjectId, body: ObjectChange, warehouse: Opened, bucket: InBucket) -> ObjectAnswer:
    """Replace the metadata; blobs stay, and nothing is extracted again."""
    stored = pipeline.change_object(warehouse, bucket, object_identifier, body, replace=True)
    return answer(stored, BlobView(request, warehouse))


@router.delete("/buckets/{bucket_identifier}/objects/{object_identifier}", status_code=204, response_class=Response)
def delete(object_identifier: ObjectId, warehouse: Opened, bucket: InBucket) -> None:
    """Delete an object with its documents and vectors in every tier."""
    pipeline.delete_objects(warehouse, bucket, [object_identifier])


def answer(stored: StoredObject, view: BlobView) -> ObjectAnswer:
    """An object as clients see it. Metadata never hides a field of the system."""
    extra = {name: value for name, value in stored.fields.items() if name not in ObjectAnswer.model_fields}
    own = stored.model_dump(include={"object_id", "bucket_id", "namespace_id", "key_prefix", "error", "created_at", "updated_at"})
    sources = [SourceDetail(type="bucket", source_id=stored.bucket_id)] if stored.sync_id else []
    return ObjectAnswer(
        **extra, **own, status=stored.status, blobs=view.all(stored), source_details=sources, metadata=stored.fields
    )


def _batch(results: Sequence[pipeline.Written | pipeline.Refused], view: BlobView) -> ObjectBatch:
    succeeded, failed = [], []
    for index, one in enumerate(results):
        if isinstance(one, pipeline.Refused):
            failed.append(ObjectFailure(object_index=index, error=one.error.message, error_type=one.error.type))
        else:
            made = answer(one.stored, view).model_dump()
            how = {"object_index": index, "replayed": one.replayed is not None, "replayed_by": one.replayed}
            succeeded.append(ObjectResult(**{**made, **how}))
    counts = {"total_requested": len(results), "succeeded_count": len(succeeded), "failed_count": len(failed)}
    return ObjectBatch(succeeded=succeeded, failed=failed, **counts)


def _list(request: Request, warehouse: Warehouse, bucket: Bucket, paging: Paging, body: ObjectPageBody) -> ObjectList:
    with warehouse.catalog.reading() as records:
        found, total = records.objects.page(bucket.bucket_id, _listing(paging, body))
        disabled = records.objects.disabled([one.object_id for one in found])
    view = BlobView(request, warehouse, signed=body.return_presigned_urls)
    answers = [answer(one, view).model_copy(update={"lifecycle_state": disabled.get(one.object_id, "active")}) for one in found]
    by_status: dict[str, int] = {}
    for one in answers:
        by_status[one.status] = by_status.get(one.status, 0) + 1
    blobs, count = sum(len(one.blobs) for one in answers), len(answers)
    stats = {"total_objects": count, "total_blobs": blobs, "objects_by_status": by_status}
    stats["avg_blobs_per_object"] = blobs / count if count else 0.0
    results = [_selected(one.model_dump(mode="json"), body.select) for one in answers]
    following = {"k": [found[-1].created_at, found[-1].object_id]} if len(found) == paging.limit and not body.sorting else None
    return ObjectList(
        results=results, pagination=pagination(paging, total=total, returned=count, next_cursor=following), stats=stats
    )


def _listing(paging: Paging, body: ObjectPageBody) -> Listing:
    after = (paging.cursor or {}).get("k")
    if after is not None and (not isinstance(after, list) or len(after) != 2 or not all(isinstance(one, str) for one in after)):
        raise BadRequest("The cursor is malformed: pass `pagination.next_cursor` back as it came.")
    return Listing(
        filter=Filter.parse(_at_root(body.parsed_filters().to_json())),
        search=body.search,
        sort=[(_root(one.field), one.direction == "desc") for one in body.sorting],
        limit=paging.limit,
        offset=0 if after else paging.offset,
        after=(after[0], after[1]) if after else None,
    )


def _root(field: str) -> str:
    """`metadata.title` and `title` are the same field: metadata is stored once."""
    field_path(field, "sort.field")
    return field.removeprefix("metadata.")


def _at_root(node: Any) -> Any:
    if isinstance(node, dict):
        return {
            key: _root(value) if key == "field" and isinstance(value, str) else _at_root(value) for key, value in node.items()
        }
    return [_at_root(one) for one in node] if isinstance(node, list) else node


def _selected(record: dict[str, Any], select: Sequence[str] | None) -> dict[str, Any]:
    """The record with the named fields only; ids and status always stay."""
    if not select:
        return record
    kept = {name: record[name] for name in ("object_id", "bucket_id", "status")}
    for field in select:
        steps = field_path(field, "select")
        source, target = record, kept
        for step in steps[:-1]:
            inner = source.get(step)
            if not isinstance(inner, dict):
                break
            source, target = inner, target.setdefault(step, {})
        else:
            if isinstance(target, dict) and steps[-1] in source:
                target[steps[-1]] = source[steps[-1]]
    return kept
