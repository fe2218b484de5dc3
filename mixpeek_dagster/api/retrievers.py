"""`/v1/retrievers`: stored searches, and searches that are not stored."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Body, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from mixpeek_dagster.api.deps import InNamespace, Opened
from mixpeek_dagster.api.documents import Deleted, presigner
from mixpeek_dagster.api.paging import Asked, PageBody, Paging, pagination, read_cursor, select_page, write_cursor
from mixpeek_dagster.api.retriever_answers import (
    ExecutionAnswer,
    ExecutionAnswers,
    RetrieverAnswer,
    RetrieverChanged,
    RetrieverCloned,
    RetrieverList,
    answer,
)
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.errors import BadRequest, MixpeekError
from mixpeek_dagster.models.ids import new_id
from mixpeek_dagster.models.listing import FieldName
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.models.retrievers import (
    STAGES,
    Id,
    InputField,
    Retriever,
    RetrieverClone,
    RetrieverCreate,
    RetrieverPatch,
    Stage,
)
from mixpeek_dagster.models.values import Lenient
from mixpeek_dagster.pipeline import retrievers as pipeline
from mixpeek_dagster.pipeline.answers import DocumentView
from mixpeek_dagster.pipeline.references import expand
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("retrievers", prefix="/v1/retrievers")
Name = Annotated[str, Path(min_length=1, max_length=255, description="Retriever id or name")]
WithUrls = Annotated[bool, Query(description="Fill in presigned URLs of the blobs")]
WithVectors = Annotated[bool, Query(description="Answer with the vectors")]


class Execution(Lenient):
    """What to run a retriever with, and which part of its result to answer with."""

    inputs: dict[str, Any] = Field(default_factory=dict)
    filters: dict[str, Any] | None = None
    pagination: dict[str, Any] | None = None
    limit: int | None = Field(default=None, ge=1, le=500)
    page_size: int | None = Field(default=None, ge=1, le=500)
    expand: list[FieldName] = Field(default=[], max_length=50)
    return_presigned_urls: bool = False
    return_vectors: bool = False


class AdHoc(Execution):
    """The same, with the stages that are not stored."""

    collection_identifiers: list[Id] = Field(default=[], max_length=1000)
    stages: list[Stage] = Field(min_length=1, max_length=20)
    input_schema: dict[str, InputField] = Field(default={}, max_length=100)


class Executions(Lenient):
    """Several sets of inputs; `settings.limit` is how many documents each answers with."""

    queries: list[Execution] = Field(min_length=1, max_length=50)
    settings: dict[str, Any] = Field(default_factory=dict)
    return_presigned_urls: bool = False
    return_vectors: bool = False

    @property
    def limit(self) -> int:
        given = self.settings.get("limit")
        return given if isinstance(given, int) and 1 <= given <= 500 else 10


@router.post("")
def create(body: RetrieverCreate, warehouse: Opened, namespace: InNamespace) -> RetrieverAnswer:
    """Store a search. 409 when the name is taken."""
    return answer(pipeline.make_retriever(warehouse, body, namespace_id=namespace.namespace_id))


@router.get("")
def list_by_query(
    warehouse: Opened, namespace: InNamespace, asked: Asked, search: Annotated[str | None, Query(max_length=1000)] = None
) -> RetrieverList:
    """List retrievers, oldest first."""
    return _list(warehouse, namespace, Paging.of(asked), PageBody(search=search))


@router.post("/list")
def list_by_body(
    warehouse: Opened, namespace: InNamespace, asked: Asked, body: Annotated[PageBody | None, Body()] = None
) -> RetrieverList:
    """List retrievers with filters, search and sorting."""
    return _list(warehouse, namespace, Paging.of(asked, body), body or PageBody())


@router.get("/stages")
def stages(namespace: InNamespace) -> list[dict[str, Any]]:
    """The kinds of stage there are."""
    return [
        {
            "stage_id": name,
            "description": _WORDS[name],
            "category": kind,
            "icon": "search" if kind == "filter" else "arrow-up-down",
        }
        for name, kind in STAGES.items()
    ]


@router.post("/execute", response_model=ExecutionAnswer)
def execute_ad_hoc(
    request: Request,
    body: AdHoc,
    warehouse: Opened,
    namespace: InNamespace,
    return_presigned_urls: WithUrls = False,
    return_vectors: WithVectors = False,
) -> JSONResponse:
    """Run stages without storing them."""
    draft = RetrieverCreate(
        retriever_name="ad hoc",
        collection_identifiers=body.collection_identifiers,
        stages=body.stages,
        input_schema=body.input_schema,
    )
    now = warehouse.now()
    unstored = Retriever(
        **draft.model_dump(), retriever_id="", namespace_id=namespace.namespace_id, created_at=now, updated_at=now
    )
    return JSONResponse(_executed(request, warehouse, unstored, body, urls=return_presigned_urls, vectors=return_vectors))


@router.get("/{retriever_identifier}")
def get(retriever_identifier: Name, warehouse: Opened, namespace: InNamespace) -> RetrieverAnswer:
    """Read a retriever."""
    return answer(_find(warehouse, namespace, retriever_identifier))


@router.patch("/{retriever_identifier}")
def patch(retriever_identifier: Name, body: RetrieverPatch, warehouse: Opened, namespace: InNamespace) -> RetrieverChanged:
    """Change what the body names; stages are replaced as a whole."""
    changed = pipeline.change_retriever(warehouse, retriever_identifier, body, namespace_id=namespace.namespace_id)
    return RetrieverChanged(retriever=answer(changed))


@router.delete("/{retriever_identifier}")
def delete(retriever_identifier: Name, warehouse: Opened, namespace: InNamespace) -> Deleted:
    """Delete a retriever; the documents stay."""
    with warehouse.catalog.transaction() as records:
        found = records.retrievers.get(retriever_identifier, namespace_id=namespace.namespace_id)
        records.retrievers.remove(found.retriever_id)
    return Deleted()


@router.post("/{retriever_identifier}/execute", response_model=ExecutionAnswer)
def execute(
    request: Request,
    retriever_identifier: Name,
    warehouse: Opened,
    namespace: InNamespace,
    body: Annotated[Execution | None, Body()] = None,
    return_presigned_urls: WithUrls = False,
    return_vectors: WithVectors = False,
) -> JSONResponse:
    """Run a stored search."""
    retriever = _find(warehouse, namespace, retriever_identifier)
    told = _executed(request, warehouse, retriever, body or Execution(), urls=return_presigned_urls, vectors=return_vectors)
    return JSONResponse(told)


@router.post("/{retriever_identifier}/execute/batch", response_model=ExecutionAnswers)
def execute_many(
    request: Request,
    retriever_identifier: Name,
    body: Executions,
    warehouse: Opened,
    namespace: InNamespace,
    return_presigned_urls: WithUrls = False,
    return_vectors: WithVectors = False,
) -> JSONResponse:
    """Run a stored search with up to 50 sets of inputs; a set that fails has `error` and fails alone."""
    retriever = _find(warehouse, namespace, retriever_identifier)
    urls, vectors = return_presigned_urls or body.return_presigned_urls, return_vectors or body.return_vectors
    results: list[dict[str, Any]] = []
    for place, one in enumerate(body.queries):
        asked = one if one.limit or one.pagination else one.model_copy(update={"limit": body.limit})
        try:
            told = _executed(request, warehouse, retriever, asked, urls=urls, vectors=vectors)
            results.append({"query_index": place, "error": None, **told})
        except MixpeekError as error:
            results.append({"query_index": place, "status": "failed", "error": error.message, "documents": []})
    failed = sum(one["error"] is not None for one in results)
    counts = {"total": len(results), "failed": failed}
    return JSONResponse({"retriever_id": retriever.retriever_id, "results": results, **counts})


@router.post("/{retriever_identifier}/clone")
def clone(retriever_identifier: Name, body: RetrieverClone, warehouse: Opened, namespace: InNamespace) -> RetrieverCloned:
    """Store a search like this one under another name."""
    source = _find(warehouse, namespace, retriever_identifier)
    made = pipeline.clone_retriever(warehouse, source, body)
    return RetrieverCloned(retriever=answer(made), source_retriever_id=source.retriever_id)


def _find(warehouse: Warehouse, namespace: Namespace, identifier: str) -> Retriever:
    with warehouse.catalog.reading() as records:
        return records.retrievers.get(identifier, namespace_id=namespace.namespace_id)


def _executed(
    request: Request, warehouse: Warehouse, retriever: Retriever, body: Execution, *, urls: bool, vectors: bool
) -> dict[str, Any]:
    limit, offset = _page(body)
    done = pipeline.run_retriever(warehouse, retriever, body.inputs, filters=body.filters)
    page = list(done.documents)[offset:][: limit or len(done.documents)]
    found = [one.document for one in page]
    with warehouse.catalog.reading() as records:
        view = DocumentView(
            records,
            namespace_id=retriever.namespace_id,
            presign=presigner(request, warehouse) if urls or body.return_presigned_urls else None,
            vectors=vectors or body.return_vectors,
        )
        documents = view.answers(found)
        warnings = expand(records, found, documents, body.expand, namespace_id=retriever.namespace_id)
    documents = [{**told, "score": None if one.score is None else round(one.score, 6)} for told, one in zip(documents, page)]
    end = offset + len(page)
    has_more = end < len(done.documents)
    statistics = {
        one.stage_name: {
            "input_count": one.taken,
            "output_count": one.given,
            "duration_ms": one.ms,
            "efficiency": one.given / one.taken if one.taken else 0.0,
            "cache_hit": False,
            "error": one.error,
        }
        for one in done.stages
    }
    return {
        "retriever_id": retriever.retriever_id or None,
        "execution_id": new_id("exec"),
        "status": "completed",
        "documents": documents,
        "results": documents,
        "pagination": {
            "method": (body.pagination or {}).get("method", "cursor"),
            "limit": limit or len(page),
            "offset": offset,
            "returned": len(page),
            "total": len(done.documents),
            "has_next": has_more,
            "cursor": write_cursor({"o": end}) if has_more else None,
        },
        "stage_statistics": {"stages": statistics, "total_time_ms": done.ms, "credits_used": 0.0},
        "budget": {"credits_used": 0.0, "time_used_ms": done.ms},
        "warnings": [*done.warnings, *warnings],
        "cache_hit": False,
    }


def _page(body: Execution) -> tuple[int | None, int]:
    """(limit, offset): a cursor, page numbers, or a plain limit; without any everything that the last stage gave."""
    said: Mapping[str, Any] = body.pagination or {}
    limit = said.get("limit") or said.get("page_size") or body.limit or body.page_size
    if limit is not None and (not isinstance(limit, int) or not 1 <= limit <= pipeline.MOST):
        raise BadRequest(f"pagination: a limit is between 1 and {pipeline.MOST}.")
    number, offset = said.get("page_number", 1), said.get("offset", 0)
    if isinstance(said.get("cursor"), str):
        offset = read_cursor(said["cursor"]).get("o")
    elif isinstance(number, int) and number > 1:
        offset = (number - 1) * (limit or 10)
    if not isinstance(offset, int) or isinstance(offset, bool) or not 0 <= offset < 2**31:
        raise BadRequest("pagination: pass `pagination.cursor` back as it came.")
    return limit, offset


def _list(warehouse: Warehouse, namespace: Namespace, paging: Paging, body: PageBody) -> RetrieverList:
    with warehouse.catalog.reading() as records:
        every = records.retrievers.all(namespace.namespace_id)
    found, total = select_page(
        every,
        paging,
        body,
        record=lambda one: one.model_dump(mode="json"),
        text=lambda one: f"{one.retriever_name}\n{one.description or ''}",
    )
    results = [answer(one) for one in found]
    return RetrieverList(results=results, total=total, pagination=pagination(paging, total=total, returned=len(results)))


_WORDS = {
    "feature_search": "Finds the documents nearest to a text, an image or a vector; several searches are fused.",
    "attribute_filter": "Keeps documents whose fields pass; before a search it narrows the search.",
    "sort_attribute": "Sorts by a field, what has none last.",
    "sort_relevance": "Sorts by the score of the searches before.",
}
