"""`/v1/features/search`: the documents nearest to a text, an image or a vector."""

from typing import Annotated, Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, field_validator

from mixpeek_dagster.api.deps import InNamespace, Opened
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.pipeline.answers import DocumentView
from mixpeek_dagster.pipeline.retrievers import query_of
from mixpeek_dagster.pipeline.search import search

router = new_router("search")


class FeatureSearch(BaseModel):
    """What to search for: a text; or an object with `text`, with `vector`, or with `image` in base64 and its `input_mode`."""

    query: Annotated[str, Field(min_length=1, max_length=100_000)] | dict[str, Any]
    collection_identifiers: list[Annotated[str, Field(min_length=1, max_length=255)]] | None = Field(
        default=None, max_length=1000
    )
    feature_uri: str | None = Field(default=None, max_length=512)
    top_k: int = Field(default=25, ge=1, le=1000)
    filters: dict[str, Any] | None = None

    @field_validator("filters", mode="after")
    @classmethod
    def _empty_is_none(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        return value or None


class DocumentSearch(BaseModel):
    """The same in the words of the SDK's `documents.search`."""

    query: str = Field(min_length=1, max_length=100_000)
    collection_ids: list[Annotated[str, Field(min_length=1, max_length=255)]] | None = Field(default=None, max_length=1000)
    page_size: int = Field(default=10, ge=1, le=1000)
    filters: dict[str, Any] | None = None


class SearchHit(BaseModel):
    """A document and how near it is: cosine similarity, -1..1."""

    document_id: str
    collection_id: str
    score: float
    vector_name: str


class SearchAnswer(BaseModel):
    """The nearest documents, best first; each is a document as lists show it, with its `score`."""

    results: list[SearchHit]
    total: int


@router.post("/features/search", response_model=SearchAnswer)
def search_features(body: FeatureSearch, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """Find the documents nearest to a text, an image or a vector."""
    found = search(
        warehouse,
        query_of(body.query),
        namespace_id=namespace.namespace_id,
        collections=body.collection_identifiers or (),
        feature_uri=body.feature_uri,
        top_k=body.top_k,
        filter=Filter.parse(body.filters),
    )
    with warehouse.catalog.reading() as records:
        documents = DocumentView(records, namespace_id=namespace.namespace_id).answers([one.document for one in found])
    results = [
        {**document, "score": round(float(one.score), 6), "vector_name": one.output} for document, one in zip(documents, found)
    ]
    return JSONResponse({"results": results, "total": len(results)})


@router.post("/documents/search", response_model=SearchAnswer)
def search_documents(body: DocumentSearch, warehouse: Opened, namespace: InNamespace) -> JSONResponse:
    """Find the documents nearest to a text."""
    asked = FeatureSearch(
        query=body.query, collection_identifiers=body.collection_ids, top_k=body.page_size, filters=body.filters
    )
    return search_features(asked, warehouse, namespace)
