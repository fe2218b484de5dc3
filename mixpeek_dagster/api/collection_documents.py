"""`/v1/collections/{c}/documents`: the documents of one collection, changed one by one, many at a time, counted and aggregated."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypedDict

from fastapi import BackgroundTasks, Body, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from mixpeek_dagster.api.deps import InCollection, Opened
from mixpeek_dagster.api.documents import (
    Deleted,
    DocumentAnswer,
    DocumentId,
    DocumentList,
    Expand,
    Fields,
    expanding,
    paged,
    presigner,
    vector_names,
)
from mixpeek_dagster.api.paging import Asked
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.tasks import TaskAnswer, task_answer
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.errors import Invalid, MixpeekError
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import CollectionId, NamespaceId
from mixpeek_dagster.models.listing import FieldName, ListRequest
from mixpeek_dagster.models.tasks import TaskType
from mixpeek_dagster.pipeline import changes
from mixpeek_dagster.pipeline.aggregation import Aggregation, DocumentRows, aggregate
from mixpeek_dagster.pipeline.documents import get_document, list_documents
from mixpeek_dagster.pipeline.tasks import add_task, run_task
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("documents", prefix="/v1/collections/{collection_identifier}/documents")
Id = Annotated[str, Field(min_length=1, max_length=255)]


class DocumentUpdate(BaseModel):
    """One document and the fields to change in it."""

    document_id: Id
    update_data: dict[str, Any]


class DocumentUpdates(BaseModel):
    """Up to 1000 changes, or one for all documents that pass a filter."""

    updates: list[DocumentUpdate] | None = Field(default=None, min_length=1, max_length=1000)
    filters: dict[str, Any] | None = None
    update_data: dict[str, Any] | None = None


class UpdateResult(BaseModel):
    """What became of one change."""

    document_id: str
    success: bool
    error: str | None = None


class DocumentsUpdated(BaseModel):
    """What became of several changes."""

    updated_count: int
    failed_count: int = 0
    results: list[UpdateResult] = []
    message: str = "Batch update completed"


class BulkUpdate(BaseModel):
    """A change of all documents that pass a filter."""

    filters: dict[str, Any] | None = None
    update_data: dict[str, Any]


class DocumentDeletions(BaseModel):
    """Which documents to delete: up to 1000 by id, or all that pass a filter, as a task."""

    document_ids: list[Id] | None = Field(default=None, min_length=1, max_length=1000)
    filters: dict[str, Any] | None = None
    reason: str | None = Field(default=None, max_length=500)


class DocumentsDeleted(BaseModel):
    """What was deleted; or the task that deletes."""

    task_id: str | None = None
    status: str | None = None
    deleted_count: int | None = None
    failed_count: int = 0
    results: list[UpdateResult] = []
    message: str = "Batch delete completed"


class DocumentCount(BaseModel):
    """How many documents."""

    collection_id: str
    count: int


class DistinctRequest(BaseModel):
    """Which field's values."""

    field: FieldName
    filters: dict[str, Any] | None = None
    limit: int = Field(default=1000, ge=1, le=10_000)


class DistinctValue(BaseModel):
    """A value and how many documents have it."""

    value: Any
    count: int


class DistinctAnswer(BaseModel):
    """The values of a field, the most frequent first."""

    field: str
    values: list[DistinctValue]
    total_distinct: int
    query_info: dict[str, Any] = {}


class AggregationResult(BaseModel):
    """One group and its numbers."""

    group: dict[str, Any]
    metrics: dict[str, Any]


class AggregationAnswer(BaseModel):
    """The groups."""

    results: list[AggregationResult]
    total_groups: int
    query_info: dict[str, Any] = {}


@router.post("/list", response_model=DocumentList)
def list_by_body(
    request: Request,
    warehouse: Opened,
    collection: InCollection,
    asked: Asked,
    body: Annotated[ListRequest | None, Body()] = None,
) -> JSONResponse:
    """List the collection's documents."""
    return _list(request, warehouse, collection, paged(body or ListRequest(), asked))


@router.get("", response_model=DocumentList)
def list_by_query(
    request: Request,
    warehouse: Opened,
    collection: InCollection,
    asked: Asked,
    filters: Annotated[str | None, Query(max_length=10_000, description="JSON")] = None,
    sort: Annotated[str | None, Query(max_length=2000, description="JSON")] = None,
    search: Annotated[str | None, Query(max_length=1000)] = None,
    return_presigned_urls: bool = False,
    return_vectors: bool = False,
) -> JSONResponse:
    """List the collection's documents; filters and sort as JSON."""
    plain = {"search": search, "return_presigned_urls": return_presigned_urls, "return_vectors": return_vectors}
    body = ListRequest.model_validate({**plain, "filters": _json("filters", filters), "sort": _json("sort", sort)})
    return _list(request, warehouse, collection, paged(body, asked))


@router.post("", response_model=DocumentAnswer)
def create(body: Fields, warehouse: Opened, collection: InCollection) -> JSONResponse:
    """Write a document that no extractor made: any fields at the root, `vectors` by name."""
    made = changes.create_document(warehouse, collection, body)
    return JSONResponse(get_document(warehouse, made, namespace_id=collection.namespace_id))


@router.get("/count")
def count(warehouse: Opened, collection: InCollection) -> DocumentCount:
    """How many documents the collection has: its running total."""
    with warehouse.catalog.reading() as records:
        return DocumentCount(collection_id=collection.collection_id, count=records.documents.count(collection.collection_id))


@router.post("/distinct")
def distinct(body: DistinctRequest, warehouse: Opened, collection: InCollection) -> DistinctAnswer:
    """The values of a field; of arrays, their elements."""
    scope = _scope(collection, body.filters)
    with warehouse.catalog.reading() as records:
        found = records.listing.distinct(scope, body.field, limit=body.limit)
    values = [DistinctValue(value=value, count=count) for value, count in found]
    return DistinctAnswer(field=body.field, values=values, total_distinct=len(values))


@router.post("/aggregate")
def aggregate_documents(body: Aggregation, warehouse: Opened, collection: InCollection) -> AggregationAnswer:
    """Numbers over groups of documents."""
    return AggregationAnswer(**aggregate(DocumentRows(warehouse, _scope(collection, body.filters)), body))


@router.post("/batch")
def update_many(body: DocumentUpdates, warehouse: Opened, collection: InCollection) -> DocumentsUpdated:
    """Change up to 1000 documents, each for itself; or all that pass a filter."""
    if body.updates is None:
        if body.update_data is None:
            raise Invalid("Say `updates`, or `filters` with `update_data`.")
        done = changes.update_by_filter(warehouse, _inputs(collection, body.filters, update_data=body.update_data))
        return DocumentsUpdated(updated_count=done["updated_count"])
    results = [_update(warehouse, collection, one) for one in body.updates]
    failed = sum(not one.success for one in results)
    return DocumentsUpdated(updated_count=len(results) - failed, failed_count=failed, results=results)


@router.patch("/bulk")
def update_bulk(body: BulkUpdate, warehouse: Opened, collection: InCollection, background: BackgroundTasks) -> TaskAnswer:
    """Change all documents that pass a filter, as a task."""
    inputs = _inputs(collection, body.filters, update_data=body.update_data)
    return _task(warehouse, collection, TaskType.UPDATE_DOCUMENTS, inputs, background)


@router.delete("/batch")
def delete_many(
    body: DocumentDeletions, warehouse: Opened, collection: InCollection, background: BackgroundTasks
) -> DocumentsDeleted:
    """Delete documents by id at once, or by filter as a task."""
    if body.document_ids is None:
        if body.filters is None:
            raise Invalid("Say `document_ids` or `filters`.")
        task = _task(warehouse, collection, TaskType.DELETE_DOCUMENTS, _inputs(collection, body.filters), background)
        return DocumentsDeleted(
            task_id=task.task_id, status=task.status, message="The documents are being deleted; poll the task."
        )
    wanted = list(dict.fromkeys(body.document_ids))
    own = _own(collection)
    gone = set(changes.delete_documents(warehouse, wanted, **own))
    results = [UpdateResult(document_id=one, success=one in gone, error=None if one in gone else "Not found.") for one in wanted]
    return DocumentsDeleted(deleted_count=len(gone), failed_count=len(wanted) - len(gone), results=results)


@router.get("/{document_id}", response_model=DocumentAnswer)
def get(
    request: Request,
    document_id: DocumentId,
    warehouse: Opened,
    collection: InCollection,
    return_presigned_urls: bool = False,
    return_vectors: bool = False,
    return_vector_names: Annotated[list[FieldName] | None, Query(description="`true`, or names")] = None,
    expand: Expand = None,
) -> JSONResponse:
    """Read a document of the collection."""
    answer = get_document(
        warehouse,
        document_id,
        namespace_id=collection.namespace_id,
        collection_id=collection.collection_id,
        presign=presigner(request, warehouse) if return_presigned_urls else None,
        vectors=return_vectors,
        vector_names=vector_names(return_vector_names),
        expanding=expanding(expand),
    )
    return JSONResponse(answer)


@router.patch("/{document_id}", response_model=DocumentAnswer)
def patch(document_id: DocumentId, body: Fields, warehouse: Opened, collection: InCollection) -> JSONResponse:
    """Change the fields that are named."""
    return _change(warehouse, collection, document_id, body, replace=False)


@router.put("/{document_id}", response_model=DocumentAnswer)
def put(document_id: DocumentId, body: Fields, warehouse: Opened, collection: InCollection) -> JSONResponse:
    """Replace the user's fields."""
    return _change(warehouse, collection, document_id, body, replace=True)


@router.delete("/{document_id}")
def delete(document_id: DocumentId, warehouse: Opened, collection: InCollection) -> Deleted:
    """Delete a document with its vectors and everything made from it."""
    own = _own(collection)
    get_document(warehouse, document_id, **own)
    changes.delete_documents(warehouse, [document_id], **own)
    return Deleted()


def _list(request: Request, warehouse: Warehouse, collection: Collection, body: ListRequest) -> JSONResponse:
    own = body.model_copy(update={"collection_ids": [collection.collection_id]})
    answer = list_documents(warehouse, own, namespace_id=collection.namespace_id, presign=presigner(request, warehouse))
    return JSONResponse(answer)


def _json(name: str, text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{name}: not JSON.") from error


class _Own(TypedDict):
    namespace_id: NamespaceId
    collection_id: CollectionId


def _own(collection: Collection) -> _Own:
    return {"namespace_id": collection.namespace_id, "collection_id": collection.collection_id}


def _scope(collection: Collection, filters: Mapping[str, Any] | None) -> Scope:
    ids: Sequence[Any] = [collection.collection_id]
    return Scope(namespace_id=collection.namespace_id, collection_ids=ids, filter=Filter.parse(filters))


def _inputs(collection: Collection, filters: Mapping[str, Any] | None, **more: Any) -> dict[str, Any]:
    Filter.parse(filters)
    return {**_own(collection), "filters": filters, **more}


def _task(
    warehouse: Warehouse, collection: Collection, kind: TaskType, inputs: Mapping[str, Any], background: BackgroundTasks
) -> TaskAnswer:
    with warehouse.catalog.transaction() as records:
        task = add_task(records, kind, inputs, namespace_id=collection.namespace_id, now=warehouse.now())
    background.add_task(run_task, warehouse, task.task_id)
    return task_answer(task)


def _update(warehouse: Warehouse, collection: Collection, one: DocumentUpdate) -> UpdateResult:
    own = _own(collection)
    try:
        changes.change_document(warehouse, one.document_id, one.update_data, replace=False, **own)
    except MixpeekError as error:
        return UpdateResult(document_id=one.document_id, success=False, error=error.message)
    return UpdateResult(document_id=one.document_id, success=True)


def _change(
    warehouse: Warehouse, collection: Collection, document_id: str, body: Mapping[str, Any], *, replace: bool
) -> JSONResponse:
    own = _own(collection)
    changes.change_document(warehouse, document_id, body, replace=replace, **own)
    return JSONResponse(get_document(warehouse, document_id, namespace_id=collection.namespace_id))
