"""`/v1/namespaces`: the isolation boundary."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import BackgroundTasks, Body, Path, Query
from pydantic import BaseModel, Field

from mixpeek_dagster.api.deps import By, ByOrganization, Opened
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination, select_page
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.api.tasks import TaskAnswer, task_answer
from mixpeek_dagster.errors import Forbidden
from mixpeek_dagster.models.ids import NamespaceId
from mixpeek_dagster.models.namespaces import Namespace, NamespaceCreate, NamespacePatch, PayloadIndex
from mixpeek_dagster.models.tasks import TaskType
from mixpeek_dagster.pipeline import namespaces as pipeline
from mixpeek_dagster.pipeline.creation import create_namespace
from mixpeek_dagster.pipeline.keys import Caller
from mixpeek_dagster.pipeline.tasks import add_task, run_task
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("namespaces")
Name = Annotated[str, Path(min_length=1, max_length=255, description="Namespace id or name")]


class ExtractorAnswer(BaseModel):
    """An extractor of a namespace."""

    feature_extractor_name: str
    version: str
    feature_extractor_id: str
    params: dict[str, Any] | None = None


class NamespaceAnswer(BaseModel):
    """A namespace, with what it holds."""

    object: Literal["namespace"] = "namespace"
    namespace_id: str
    namespace_name: str
    description: str | None = None
    feature_extractors: list[ExtractorAnswer] = []
    payload_indexes: list[PayloadIndex] = []
    payload_index_count: int = 0
    document_count: int = 0
    document_count_complete: bool = True
    bucket_count: int = 0
    collection_count: int = 0
    object_count: int = 0
    mode: str = "managed"
    namespace_ready: bool = True
    created_at: str
    updated_at: str


class NamespaceStats(BaseModel):
    """How much a namespace holds."""

    namespace_id: str
    document_count: int
    document_count_complete: bool = True
    bucket_count: int
    collection_count: int
    object_count: int


class NamespaceList(BaseModel):
    """One page of namespaces."""

    results: list[NamespaceAnswer]
    pagination: Pagination
    total_count: int
    stats: dict[str, Any] = Field(default_factory=dict)


class IndexesAnswer(BaseModel):
    """The declared payload indexes, by field: `ensured` were there or are now, `rebuilt` were made anew."""

    namespace_id: str
    ensured: list[str]
    rebuilt: list[str]
    created: list[str]
    skipped: list[str] = []


class StatsAnswer(BaseModel):
    """Counts by namespace id."""

    stats: dict[str, NamespaceStats]


class StatsQuestion(BaseModel):
    """Which namespaces to count."""

    namespace_ids: list[str] = Field(max_length=100)


@router.post("/namespaces")
def create(body: NamespaceCreate, warehouse: Opened, caller: ByOrganization) -> NamespaceAnswer:
    """Make a namespace. 409 when the name is taken."""
    with warehouse.catalog.transaction() as records:
        return answer(create_namespace(records, body, now=warehouse.now()), {})


@router.get("/namespaces")
def list_by_query(
    warehouse: Opened, caller: By, asked: Asked, search: Annotated[str | None, Query(max_length=1000)] = None
) -> NamespaceList:
    """List namespaces, oldest first."""
    return _list(warehouse, caller, Paging.of(asked), PageBody(search=search))


@router.post("/namespaces/list")
def list_by_body(warehouse: Opened, caller: By, asked: Asked, body: Annotated[PageBody | None, Body()] = None) -> NamespaceList:
    """List namespaces with filters, search and sorting."""
    return _list(warehouse, caller, Paging.of(asked, body), body or PageBody())


@router.post("/namespaces/stats/batch")
def stats_of_many(body: StatsQuestion, warehouse: Opened, caller: By) -> StatsAnswer:
    """Count what several namespaces hold, by id; those the key may not see, or that are not there, are left out."""
    with warehouse.catalog.reading() as records:
        known = {one.namespace_id for one in records.namespaces.all() if caller.may_use(one.namespace_id)}
        counts = {one: records.namespaces.counts(NamespaceId(one)) for one in body.namespace_ids if one in known}
    return StatsAnswer(stats={one: NamespaceStats(namespace_id=one, **each) for one, each in counts.items()})


@router.get("/namespaces/{namespace_identifier}")
def get(namespace_identifier: Name, warehouse: Opened, caller: By) -> NamespaceAnswer:
    """Read a namespace by id or name."""
    namespace = _own(warehouse, caller, namespace_identifier)
    return answer(namespace, _counts(warehouse, namespace.namespace_id))


@router.get("/namespaces/{namespace_identifier}/stats")
def stats(namespace_identifier: Name, warehouse: Opened, caller: By) -> NamespaceStats:
    """Count what a namespace holds."""
    return _stats(warehouse, _own(warehouse, caller, namespace_identifier))


@router.patch("/namespaces/{namespace_identifier}")
def patch(namespace_identifier: Name, body: NamespacePatch, warehouse: Opened, caller: By) -> NamespaceAnswer:
    """Change name or description; extractors and payload indexes that are named are added."""
    own = _own(warehouse, caller, namespace_identifier)
    changed = pipeline.change_namespace(warehouse, own.namespace_id, body, replace=False)
    return answer(changed, _counts(warehouse, own.namespace_id))


@router.put("/namespaces/{namespace_identifier}")
def put(namespace_identifier: Name, body: NamespacePatch, warehouse: Opened, caller: By) -> NamespaceAnswer:
    """Change the name, and replace the payload indexes."""
    own = _own(warehouse, caller, namespace_identifier)
    changed = pipeline.change_namespace(warehouse, own.namespace_id, body, replace=True)
    return answer(changed, _counts(warehouse, own.namespace_id))


@router.post("/namespaces/{namespace_identifier}/ensure-indexes")
def ensure_indexes(namespace_identifier: Name, warehouse: Opened, caller: By, force_rebuild: bool = False) -> IndexesAnswer:
    """Make the declared payload indexes that are missing, or all of them anew. Writers of documents wait meanwhile."""
    own = _own(warehouse, caller, namespace_identifier)
    with warehouse.catalog.transaction() as records:
        records.namespaces.ensure_indexes(own, rebuild=force_rebuild)
    names = [one.field_name for one in own.payload_indexes]
    return IndexesAnswer(
        namespace_id=own.namespace_id,
        ensured=[] if force_rebuild else names,
        rebuilt=names if force_rebuild else [],
        created=names,
    )


@router.delete("/namespaces/{namespace_identifier}")
def delete(namespace_identifier: Name, warehouse: Opened, caller: By, later: BackgroundTasks, force: bool = False) -> TaskAnswer:
    """Delete a namespace with everything in it, as a task. Without `force`, work under way forbids it."""
    own = _own(warehouse, caller, namespace_identifier)
    with warehouse.catalog.transaction() as records:
        pipeline.check_idle(records, own.namespace_id, force=force)
        inputs = {"namespace_id": own.namespace_id}
        task = add_task(records, TaskType.DELETE_NAMESPACE, inputs, namespace_id=None, now=warehouse.now())
    later.add_task(run_task, warehouse, task.task_id)
    return task_answer(task)


def answer(namespace: Namespace, counts: Mapping[str, int]) -> NamespaceAnswer:
    """A namespace as clients see it."""
    extractors = [
        ExtractorAnswer(**one.model_dump(), feature_extractor_id=f"{one.feature_extractor_name}_{one.version}")
        for one in namespace.feature_extractors
    ]
    own = namespace.model_dump(exclude={"feature_extractors", "payload_indexes"})
    indexes = list(namespace.payload_indexes)
    return NamespaceAnswer(
        **own, **counts, feature_extractors=extractors, payload_indexes=indexes, payload_index_count=len(indexes)
    )


def _own(warehouse: Warehouse, caller: Caller, identifier: str) -> Namespace:
    with warehouse.catalog.reading() as records:
        found = records.namespaces.get(identifier)
    if not caller.may_use(found.namespace_id):
        raise Forbidden(f"API key {caller.key_id} may not use namespace {identifier!r}.")
    return found


def _counts(warehouse: Warehouse, namespace_id: NamespaceId) -> dict[str, int]:
    with warehouse.catalog.reading() as records:
        return records.namespaces.counts(namespace_id)


def _stats(warehouse: Warehouse, namespace: Namespace) -> NamespaceStats:
    return NamespaceStats(namespace_id=namespace.namespace_id, **_counts(warehouse, namespace.namespace_id))


def _list(warehouse: Warehouse, caller: Caller, paging: Paging, body: PageBody) -> NamespaceList:
    with warehouse.catalog.reading() as records:
        visible = [one for one in records.namespaces.all() if caller.may_use(one.namespace_id)]
        found, total = select_page(
            visible, paging, body, record=lambda one: one.model_dump(mode="json"), text=lambda one: one.namespace_name
        )
        results = [answer(one, records.namespaces.counts(one.namespace_id)) for one in found]
    block = pagination(paging, total=total, returned=len(results))
    return NamespaceList(results=results, pagination=block, total_count=total, stats={"total_namespaces": total})
