"""Where documents come from and what was made of them: lineage, ancestors, descendants, the tree of an object."""

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from mixpeek_dagster.api.deps import InCollection, InNamespace, Opened
from mixpeek_dagster.api.documents import DocumentAnswer, DocumentId, presigner
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.errors import NotFound
from mixpeek_dagster.pipeline import lineage as pipeline
from mixpeek_dagster.pipeline.answers import DocumentView

router = new_router("lineage")
ObjectId = Annotated[str, Path(min_length=1, max_length=255, description="Object id")]
Most = Annotated[int, Query(ge=1, le=1000)]
Offset = Annotated[int, Query(ge=0, le=10_000_000)]


def _in_collection(document_id: DocumentId, warehouse: Opened, collection: InCollection) -> str:
    with warehouse.catalog.reading() as records:
        document = records.documents.get(document_id, namespace_id=collection.namespace_id)
    if document.collection_id != collection.collection_id:
        raise NotFound(f"No document {document_id!r} in {collection.collection_id}.")
    return document_id


InCollectionDocument = Annotated[str, Depends(_in_collection)]
"""A document's id, when the document is in the collection of the path."""


class LineageAnswer(BaseModel):
    """A document's way from its object: `depth` 1 was made from an object, 2 from such a document, and so on."""

    document_id: str
    collection_id: str
    lineage: dict[str, Any]
    depth: int
    total_steps: int
    message: str


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
def lineage(document_id: DocumentId, warehouse: Opened, namespace: InNamespace) -> LineageAnswer:
    """The chain of a document, root first."""
    return LineageAnswer(**pipeline.lineage(warehouse, document_id, namespace_id=namespace.namespace_id))


@router.get("/collections/{collection_identifier}/documents/{document_id}/lineage")
def lineage_in_collection(document_id: InCollectionDocument, warehouse: Opened, namespace: InNamespace) -> LineageAnswer:
    """The chain of a document of the collection, root first."""
    return lineage(document_id, warehouse, namespace)


@router.get("/documents/{document_id}/ancestors", response_model=list[DocumentAnswer])
def ancestors(document_id: DocumentId, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """The documents it was made from, root first."""
    with warehouse.catalog.reading() as records:
        document = records.documents.get(document_id, namespace_id=namespace.namespace_id)
        found = pipeline.ancestors(records, document)[:-1]
        return JSONResponse(DocumentView(records, namespace_id=namespace.namespace_id).answers(found))


@router.get("/collections/{collection_identifier}/documents/{document_id}/ancestors", response_model=list[DocumentAnswer])
def ancestors_in_collection(document_id: InCollectionDocument, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """The documents that a document of the collection was made from, root first."""
    return ancestors(document_id, warehouse, namespace)


@router.get("/documents/{document_id}/descendants", response_model=list[DocumentAnswer])
def descendants(
    document_id: DocumentId, warehouse: Opened, namespace: InNamespace, limit: Most = 100, offset: Offset = 0
) -> JSONResponse:
    """The documents that were made from it, in every tier below; header `X-Total-Count` says how many there are."""
    with warehouse.catalog.reading() as records:
        document = records.documents.get(document_id, namespace_id=namespace.namespace_id)
        below = records.documents.with_descendants([document.document_id])
        ids = [one for own in below.values() for one in own if one != document.document_id]
        page = ids[offset : offset + limit]
        found = records.documents.named(page, namespace_id=namespace.namespace_id)
        view = DocumentView(records, namespace_id=namespace.namespace_id)
        results = view.answers([found[one] for one in page if one in found])
    return JSONResponse(results, headers={"X-Total-Count": str(len(ids))})


@router.get("/collections/{collection_identifier}/documents/{document_id}/descendants", response_model=list[DocumentAnswer])
def descendants_in_collection(
    document_id: InCollectionDocument, warehouse: Opened, namespace: InNamespace, limit: Most = 100, offset: Offset = 0
) -> JSONResponse:
    """The documents that were made from a document of the collection, in every tier below."""
    return descendants(document_id, warehouse, namespace, limit, offset)


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
