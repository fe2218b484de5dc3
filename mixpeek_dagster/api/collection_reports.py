"""What there is to say about a collection and its documents: what is missing, why, and whether a document would fit."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from pydantic import BaseModel

from mixpeek_dagster.api.deps import InCollection, Opened
from mixpeek_dagster.api.documents import Fields
from mixpeek_dagster.api.lineage import InCollectionDocument
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.errors import SchemaViolation
from mixpeek_dagster.models.documents import DocumentState
from mixpeek_dagster.models.objects import ObjectStatus, StoredObject
from mixpeek_dagster.pipeline import lineage

router = new_router("collections", prefix="/v1/collections/{collection_identifier}")
_REASONS = {ObjectStatus.FAILED: "failed", ObjectStatus.COMPLETED: "no_document", ObjectStatus.PENDING: "processing"}


class Discrepancy(BaseModel):
    """An object that the collection reads, and has no document of."""

    object_id: str
    bucket_id: str
    reason: str
    status: str
    age_seconds: float
    error: str | None = None


class Reconciliation(BaseModel):
    """Whether every source object has documents; `delta` is how many have none."""

    collection_id: str
    source_object_count: int
    produced_object_count: int
    document_count: int
    delta: int
    discrepancies: list[Discrepancy]
    discrepancies_truncated: bool
    limit: int


class Visibility(BaseModel):
    """Whether the document can be found by searching."""

    searchable: bool
    reason: str
    source_object_id: str | None


class RecentFailure(BaseModel):
    """What the source object failed of."""

    source: str = "object"
    object_id: str
    status: str
    error: str | None


class Failures(BaseModel):
    """Failures of the source object; `reason` says why there are none."""

    failures: list[RecentFailure]
    reason: str | None = None


class HistoryEntry(BaseModel):
    """One step of the document's way."""

    source: str
    timestamp: str | None
    detail: dict[str, Any]


class History(BaseModel):
    """The document's way from its object."""

    entries: list[HistoryEntry]
    reason: str | None = None


class DocumentDiagnostics(BaseModel):
    """Why a document is as it is."""

    document_id: str
    collection_id: str
    source_object_id: str | None
    visibility_reason: Visibility
    recent_failures: Failures
    diagnostic_history: History


class SchemaCheck(BaseModel):
    """Whether a document would fit the collection's output schema."""

    valid: bool
    violations: list[str]


@router.get("/reconciliation")
def reconciliation(
    warehouse: Opened, collection: InCollection, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Reconciliation:
    """Which objects that the collection reads have no document in it, and why."""
    source = collection.source
    with warehouse.catalog.reading() as records:
        missing, total = records.objects.without_documents(
            collection.collection_id, bucket_ids=source.bucket_ids, above=source.collection_ids, limit=limit + 1
        )
        produced = records.documents.roots([collection.collection_id])
        disabled = records.objects.disabled([one.object_id for one in missing])
        count = records.documents.count(collection.collection_id)
    now = warehouse.clock()

    def told(one: StoredObject) -> Discrepancy:
        return Discrepancy(
            object_id=one.object_id,
            bucket_id=one.bucket_id,
            reason="skipped" if one.object_id in disabled else _REASONS[one.status],
            status=one.status,
            age_seconds=round((now - datetime.fromisoformat(one.created_at)).total_seconds(), 1),
            error=one.error,
        )

    return Reconciliation(
        collection_id=collection.collection_id,
        source_object_count=total,
        produced_object_count=produced,
        document_count=count,
        delta=total - produced,
        discrepancies=[told(one) for one in missing[:limit]],
        discrepancies_truncated=len(missing) > limit,
        limit=limit,
    )


@router.post("/documents/schema/validate")
def validate(body: Fields, collection: InCollection) -> SchemaCheck:
    """Whether a document would fit the collection's output schema; nothing is written."""
    schema = collection.output_schema
    violations = []
    for name, value in body.items():
        field = schema.properties.get(name)
        if field is None or value is None:
            continue
        try:
            schema.model_copy(update={"properties": {name: field}}).fit({}, {name: value}, owner="Document")
        except SchemaViolation as error:
            violations.append(error.message)
    return SchemaCheck(valid=not violations, violations=violations)


@router.get("/documents/{document_id}/diagnostics")
def diagnostics(document_id: InCollectionDocument, warehouse: Opened, collection: InCollection) -> DocumentDiagnostics:
    """Whether a document can be found, what its object failed of, and the way it came."""
    with warehouse.catalog.reading() as records:
        document = records.documents.get(document_id, namespace_id=collection.namespace_id)
        chain = lineage.ancestors(records, document)
        root = document.root_object_id or ""
        stored = records.objects.named([root]).get(root)
        vectors = records.documents.vectors_of([document])[document.document_id]
    is_found = document.state is DocumentState.INDEXED and bool(vectors)
    why = f"It is indexed, with {len(vectors)} vectors." if is_found else f"It is {document.state}, with {len(vectors)} vectors."
    failed = (
        [RecentFailure(object_id=stored.object_id, status=stored.status, error=stored.error)] if stored and stored.error else []
    )
    entries = [
        HistoryEntry(
            source="lineage.chain",
            timestamp=one.created_at,
            detail={
                "document_id": one.document_id,
                "collection_id": one.collection_id,
                "batch_id": one.batch_id,
                "run_id": one.run_id,
            },
        )
        for one in chain
    ]
    return DocumentDiagnostics(
        document_id=document.document_id,
        collection_id=document.collection_id,
        source_object_id=document.root_object_id,
        visibility_reason=Visibility(searchable=is_found, reason=why, source_object_id=document.root_object_id),
        recent_failures=Failures(failures=failed, reason=None if failed else "Its object has not failed."),
        diagnostic_history=History(entries=entries),
    )
