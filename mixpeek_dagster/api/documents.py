"""`/v1/documents`: what was made of the objects, listed and read across the collections of a namespace."""

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Annotated, Any

from fastapi import Body, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from mixpeek_dagster.api.blobs import BlobView
from mixpeek_dagster.api.deps import InNamespace, Opened
from mixpeek_dagster.api.paging import Asked, PageQuery, Pagination
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.errors import MixpeekError
from mixpeek_dagster.models.filters import field_path
from mixpeek_dagster.models.listing import FieldName, ListRequest
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.pipeline import changes
from mixpeek_dagster.pipeline.answers import DocumentView, Presign
from mixpeek_dagster.pipeline.documents import get_document, list_documents
from mixpeek_dagster.pipeline.warehouse import Warehouse

logger = logging.getLogger("mixpeek_dagster.api")
router = new_router("documents")
DocumentId = Annotated[str, Path(min_length=1, max_length=255, description="Document id")]
Fields = Annotated[dict[str, Any], Body(description="The user's fields, at the root")]
Expand = Annotated[str | None, Query(max_length=5000, description="Fields that name documents, with commas between")]
CONCURRENT = 10


class DocumentAnswer(BaseModel):
    """A document: the user's fields at the root, the source's blobs, and where it comes from."""

    model_config = ConfigDict(extra="allow")

    document_id: str
    collection_id: str
    document_blobs: list[dict[str, Any]] | None = None
    internal: dict[str, Any] | None = Field(default=None, alias="_internal")


class DocumentGroup(BaseModel):
    """The documents with one value of the grouping field; `count` is how many there are, `documents` the first of them."""

    group_key: Any = None
    documents: list[DocumentAnswer]
    count: int


class DocumentList(BaseModel):
    """One page of documents in `results`, or with `group_by` of groups in `groups`."""

    results: list[DocumentAnswer] | None = None
    groups: list[DocumentGroup] | None = None
    group_by_field: str | None = None
    pagination: Pagination
    stats: dict[str, Any]
    total_documents: int
    unknown_collection_ids: list[str] = []
    warnings: list[str] = []


class KeyedQuery(BaseModel):
    """One list request, and the key that its answer will carry."""

    model_config = ConfigDict(frozen=True)

    key: str = Field(min_length=1, max_length=128)
    request: ListRequest


class KeyedQueries(BaseModel):
    """Up to ten list requests."""

    queries: list[KeyedQuery] = Field(min_length=1, max_length=CONCURRENT)


class KeyedAnswer(BaseModel):
    """The answer of one request; or why there is none."""

    key: str
    response: DocumentList | None = None
    error: str | None = None


class KeyedAnswers(BaseModel):
    """One answer per request, in the same order."""

    results: list[KeyedAnswer]


class DocumentIds(BaseModel):
    """Which documents to read."""

    document_ids: list[Annotated[str, Field(min_length=1, max_length=255)]] = Field(min_length=1, max_length=1000)
    return_presigned_urls: bool = True


class DocumentsFound(BaseModel):
    """The documents that exist, in the order asked for, and the ids that do not."""

    documents: list[DocumentAnswer]
    not_found: list[str]


class Deleted(BaseModel):
    """What a deletion says."""

    message: str = "Successfully deleted"
    success: bool = True


def presigner(request: Request, warehouse: Warehouse) -> Presign:
    """Signs URLs of blobs as the client reaches this server."""
    return BlobView(request, warehouse, signed=True).url


@router.post("/documents/list", response_model=DocumentList)
def list_by_body(
    request: Request,
    warehouse: Opened,
    namespace: InNamespace,
    asked: Asked,
    body: Annotated[ListRequest | None, Body()] = None,
) -> JSONResponse:
    """List documents of the namespace: filters, search, sorting, cursor or offset, groups, selected fields, references."""
    return JSONResponse(_list(warehouse, namespace, paged(body or ListRequest(), asked), presigner(request, warehouse)))


@router.post("/documents/list/batch", response_model=KeyedAnswers)
def list_batch(request: Request, body: KeyedQueries, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """Run up to ten list requests concurrently. Answers keep the order; a request that fails has `error` and fails alone."""
    answer_one = partial(_isolated, warehouse, namespace, presigner(request, warehouse))
    if len(body.queries) == 1:
        return JSONResponse({"results": [answer_one(body.queries[0])]})
    return JSONResponse({"results": list(_pool(warehouse.catalog.readers).map(answer_one, body.queries))})


@router.post("/documents/batch-get", response_model=DocumentsFound)
def batch_get(request: Request, body: DocumentIds, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """Read up to 1000 documents by id."""
    wanted = list(dict.fromkeys(body.document_ids))
    presign = presigner(request, warehouse) if body.return_presigned_urls else None
    with warehouse.catalog.reading() as records:
        found = records.documents.named(wanted, namespace_id=namespace.namespace_id)
        there = [one for one in wanted if one in found]
        view = DocumentView(records, namespace_id=namespace.namespace_id, presign=presign)
        documents = view.answers([found[one] for one in there])
    return JSONResponse({"documents": documents, "not_found": [one for one in wanted if one not in found]})


@router.get("/documents/{document_id}", response_model=DocumentAnswer)
def get(
    request: Request,
    document_id: DocumentId,
    warehouse: Opened,
    namespace: InNamespace,
    return_presigned_urls: bool = False,
    return_vectors: bool = False,
    return_vector_names: Annotated[list[FieldName] | None, Query(description="`true`, or names")] = None,
    expand: Expand = None,
) -> JSONResponse:
    """Read a document."""
    answer = get_document(
        warehouse,
        document_id,
        namespace_id=namespace.namespace_id,
        presign=presigner(request, warehouse) if return_presigned_urls else None,
        vectors=return_vectors,
        vector_names=vector_names(return_vector_names),
        expanding=expanding(expand),
    )
    return JSONResponse(answer)


@router.patch("/documents/{document_id}", response_model=DocumentAnswer)
def patch(document_id: DocumentId, body: Fields, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """Change the fields that are named."""
    return _change(warehouse, namespace, document_id, body, replace=False)


@router.put("/documents/{document_id}", response_model=DocumentAnswer)
def put(document_id: DocumentId, body: Fields, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """Replace the user's fields; vectors and lineage stay."""
    return _change(warehouse, namespace, document_id, body, replace=True)


@router.delete("/documents/{document_id}")
def delete(document_id: DocumentId, warehouse: Opened, namespace: InNamespace) -> Deleted:
    """Delete a document with its vectors and everything made from it."""
    get_document(warehouse, document_id, namespace_id=namespace.namespace_id)
    changes.delete_documents(warehouse, [document_id], namespace_id=namespace.namespace_id)
    return Deleted()


def paged(body: ListRequest, asked: PageQuery) -> ListRequest:
    """The request with what the query string says about the page, where the body says nothing."""
    limit = body.limit if "limit" in body.model_fields_set else asked.limit or asked.page_size or body.limit
    offset = body.offset
    if "offset" not in body.model_fields_set:
        offset = asked.offset if asked.offset is not None else ((asked.page or 1) - 1) * limit
    cursor = body.cursor or asked.cursor or asked.next_cursor or asked.after
    return body.model_copy(update={"limit": limit, "offset": offset, "cursor": cursor})


def vector_names(given: list[str] | None) -> bool | list[str]:
    """`?return_vector_names=true`, or names."""
    if given in (None, ["false"]):
        return False
    return True if given == ["true"] else given or False


def expanding(given: str | None) -> list[str]:
    """`?expand=customer_id,parents`. Raises Invalid when one is no path."""
    names = [one.strip() for one in (given or "").split(",") if one.strip()]
    for place, name in enumerate(names):
        field_path(name, f"expand[{place}]")
    return names


def _change(
    warehouse: Warehouse, namespace: Namespace, document_id: str, body: Mapping[str, Any], *, replace: bool
) -> JSONResponse:
    changes.change_document(warehouse, document_id, body, namespace_id=namespace.namespace_id, replace=replace)
    return JSONResponse(get_document(warehouse, document_id, namespace_id=namespace.namespace_id))


def _list(warehouse: Warehouse, namespace: Namespace, body: ListRequest, presign: Presign) -> dict[str, Any]:
    return list_documents(warehouse, body, namespace_id=namespace.namespace_id, presign=presign)


def _isolated(warehouse: Warehouse, namespace: Namespace, presign: Presign, query: KeyedQuery) -> dict[str, Any]:
    try:
        return {"key": query.key, "response": _list(warehouse, namespace, query.request, presign), "error": None}
    except MixpeekError as error:
        return {"key": query.key, "response": None, "error": error.message[:500]}
    except Exception:
        logger.exception("query %r of a list/batch failed", query.key)
        return {"key": query.key, "response": None, "error": "The server failed; its log has the reason."}


@cache
def _pool(readers: int) -> ThreadPoolExecutor:
    """Shared by all requests: a burst of them must not ask for more connections than the catalog has."""
    return ThreadPoolExecutor(min(CONCURRENT, readers), thread_name_prefix="list-batch")
