"""Where documents come from and what was made of them: lineage, ancestors, descendants, the tree of an object."""

from typing import Annotated, Any

from fastapi import Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from mixpeek_dagster.api.deps import InNamespace, Opened
from mixpeek_dagster.api.documents import DocumentAnswer, DocumentId, presigner
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.pipeline import lineage as pipeline
from mixpeek_dagster.pipeline.answers import DocumentView

router = new_router("lineage")
ObjectId = Annotated[str, Path(min_length=1, max_length=255, description="Object id")]


class LineageAnswer(BaseModel):
    """A document's way from its object: `depth` 1 was made from an object, 2 from such a document, and so on."""

    document_id: str
    collection_id: str
    lineage: dict[str, Any]
    depth: int
    total_steps: int
    message: str


class RelativesAnswer(BaseModel):
    """Documents above or below one in the tiers."""

    document_id: str
    results: list[DocumentAnswer]
    total: int
    truncated: bool = False


class ObjectDocuments(BaseModel):
    """The documents made from an object, in every tier."""

    object_id: str
    results: list[DocumentAnswer]
    total: int


class DecompositionTree(BaseModel):
    """How an object was taken apart: collections, each with its documents and the collections that read it."""

    object_id: str
    bucket_id: str
    total_documents: int
    tree: list[dict[str, Any]]


@router.get("/documents/{document_id}/lineage")
@router.get("/collections/{collection_identifier}/documents/{document_id}/lineage", include_in_schema=False)
def lineage(document_id: DocumentId, warehouse: Opened, namespace: InNamespace) -> LineageAnswer:
    """The chain of a document, root first."""
    return LineageAnswer(**pipeline.lineage(warehouse, document_id, namespace_id=namespace.namespace_id))


@router.get("/documents/{document_id}/ancestors", response_model=RelativesAnswer)
@router.get(
    "/collections/{collection_identifier}/documents/{document_id}/ancestors",
    response_model=RelativesAnswer,
    include_in_schema=False,
)
def ancestors(document_id: DocumentId, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """The documents it was made from, root first."""
    with warehouse.catalog.reading() as records:
        document = records.documents.get(document_id, namespace_id=namespace.namespace_id)
        found = pipeline.ancestors(records, document)[:-1]
        results = DocumentView(records, namespace_id=namespace.namespace_id).answers(found)
    return JSONResponse({"document_id": document_id, "results": results, "total": len(results), "truncated": False})


@router.get("/documents/{document_id}/descendants", response_model=RelativesAnswer)
@router.get(
    "/collections/{collection_identifier}/documents/{document_id}/descendants",
    response_model=RelativesAnswer,
    include_in_schema=False,
)
def descendants(
    document_id: DocumentId, warehouse: Opened, namespace: InNamespace, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> JSONResponse:
    """The documents that were made from it, in every tier below."""
    with warehouse.catalog.reading() as records:
        document = records.documents.get(document_id, namespace_id=namespace.namespace_id)
        below = records.documents.with_descendants([document.document_id])
        ids = [one for own in below.values() for one in own if one != document.document_id]
        found = records.documents.named(ids[:limit], namespace_id=namespace.namespace_id)
        results = DocumentView(records, namespace_id=namespace.namespace_id).answers(list(found.values()))
    body = {"document_id": document_id, "results": results, "total": len(ids), "truncated": len(ids) > limit}
    return JSONResponse(body)


@router.get("/objects/{object_id}/documents", response_model=ObjectDocuments)
def of_object(
    request: Request,
    object_id: ObjectId,
    warehouse: Opened,
    namespace: InNamespace,
    collection_ids: Annotated[list[str] | None, Query(max_length=1000)] = None,
    return_presigned_urls: bool = False,
) -> JSONResponse:
    """The documents made from an object; only those of some collections, by id or name, when they are named."""
    presign = presigner(request, warehouse) if return_presigned_urls else None
    with warehouse.catalog.reading() as records:
        stored = records.objects.get(object_id, namespace_id=namespace.namespace_id)
        found = records.documents.of_objects([stored.object_id])
        if collection_ids:
            wanted = [one for text in collection_ids for one in text.split(",")]
            own = {records.collections.get(one, namespace_id=namespace.namespace_id).collection_id for one in wanted}
            found = [one for one in found if one.collection_id in own]
        results = DocumentView(records, namespace_id=namespace.namespace_id, presign=presign).answers(found)
    return JSONResponse({"object_id": object_id, "results": results, "total": len(results)})


@router.get("/objects/{object_id}/decomposition-tree")
def decomposition_tree(
    object_id: ObjectId, warehouse: Opened, namespace: InNamespace, include_document_ids: bool = False
) -> DecompositionTree:
    """What was made of an object, collection by collection."""
    tree = pipeline.decomposition(
        warehouse, object_id, namespace_id=namespace.namespace_id, include_document_ids=include_document_ids
    )
    return DecompositionTree(**tree)
