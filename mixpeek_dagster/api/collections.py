"""`/v1/collections`: what is made of buckets, or of other collections, by one extractor."""

from typing import Annotated, Any

from fastapi import Body, Query
from pydantic import BaseModel

from mixpeek_dagster.api.deps import InCollection, InNamespace, Opened
from mixpeek_dagster.api.documents import Deleted
from mixpeek_dagster.api.paging import Asked, PageBody, Pagination, Paging, pagination, select_page
from mixpeek_dagster.api.routes import new_router
from mixpeek_dagster.models.collections import Collection, CollectionCreate
from mixpeek_dagster.models.namespaces import Namespace
from mixpeek_dagster.pipeline import collections as pipeline
from mixpeek_dagster.pipeline.triggers import Triggered, TriggerRequest, trigger
from mixpeek_dagster.pipeline.warehouse import Warehouse

router = new_router("collections")


class CollectionAnswer(BaseModel):
    """A collection, with its computed schemas and its running total."""

    collection_id: str
    collection_name: str
    namespace_id: str
    description: str | None = None
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]
    feature_extractor: dict[str, Any]
    source: dict[str, Any]
    vector_indexes: list[dict[str, Any]] = []
    payload_indexes: list[Any] = []
    enabled: bool = True
    metadata: dict[str, Any] | None = None
    created_at: str
    updated_at: str
    lifecycle_state: str = "active"
    document_count: int = 0
    vector_count: int = 0
    taxonomy_count: int = 0
    retriever_count: int = 0
    schema_version: int = 1
    warnings: list[str] = []


class CollectionList(BaseModel):
    """One page of collections."""

    results: list[CollectionAnswer]
    total_count: int
    pagination: Pagination
    stats: dict[str, Any]
    warnings: list[Any] = []


class CollectionPageBody(PageBody):
    """Which collections to list."""

    include_system: bool = False


class CloneAnswer(BaseModel):
    """The copy, and what it is a copy of."""

    collection: CollectionAnswer
    source_collection_id: str


class TriggerAnswer(BaseModel):
    """The work that was submitted; watch `GET /v1/batches/{batch_id}` or `GET /v1/tasks/{task_id}`."""

    batch_id: str
    task_id: str
    collection_id: str
    source_bucket_ids: list[str] | None = None
    source_collection_ids: list[str] | None = None
    object_count: int | None = None
    document_count: int | None = None
    batch_ids: list[str]
    task_ids: list[str]
    batch_count: int
    total_tiers: int
    message: str


class VectorAnswer(BaseModel):
    """A vector index: its name, and how vectors in it are compared."""

    name: str
    description: str
    dimensions: int
    type: str = "dense"
    distance: str = "cosine"
    datatype: str = "float32"


class FeatureAnswer(BaseModel):
    """One vector of a collection."""

    feature_uri: str
    feature_address: str
    feature_name: str
    feature_extractor_name: str
    version: str
    vector_index: VectorAnswer
    primary: bool
    modality: str


class FeaturesAnswer(BaseModel):
    """What can be searched in a collection."""

    features: list[FeatureAnswer]


@router.post("/collections")
def create(body: CollectionCreate, warehouse: Opened, namespace: InNamespace) -> CollectionAnswer:
    """Make a collection; its schemas and vectors are computed. 409 when the name is taken."""
    return answer(pipeline.make_collection(warehouse, body, namespace_id=namespace.namespace_id))


@router.get("/collections")
def list_by_query(
    warehouse: Opened, namespace: InNamespace, asked: Asked, search: Annotated[str | None, Query(max_length=1000)] = None
) -> CollectionList:
    """List the collections of the namespace."""
    return _list(warehouse, namespace, Paging.of(asked), CollectionPageBody(search=search))


@router.post("/collections/list")
def list_by_body(
    warehouse: Opened, namespace: InNamespace, asked: Asked, body: Annotated[CollectionPageBody | None, Body()] = None
) -> CollectionList:
    """List collections with filters, search and sorting."""
    return _list(warehouse, namespace, Paging.of(asked, body), body or CollectionPageBody())


@router.get("/collections/{collection_identifier}")
def get(collection: InCollection) -> CollectionAnswer:
    """Read a collection."""
    return answer(collection)


@router.patch("/collections/{collection_identifier}")
def patch(body: pipeline.CollectionPatch, warehouse: Opened, collection: InCollection) -> CollectionAnswer:
    """Change name, description, metadata, or whether new objects are processed."""
    return answer(pipeline.change_collection(warehouse, collection, body))


@router.delete("/collections/{collection_identifier}")
def delete(
    warehouse: Opened,
    collection: InCollection,
    force: Annotated[bool, Query(description="Also when other collections read from it")] = False,
) -> Deleted:
    """Delete a collection with its documents and vectors."""
    count = pipeline.delete_collection(warehouse, collection, force=force)
    return Deleted(message=f"Successfully deleted, with {count} documents")


@router.post("/collections/{collection_identifier}/clone")
def clone(body: pipeline.CollectionClone, warehouse: Opened, collection: InCollection) -> CloneAnswer:
    """Make a collection like this one, without its documents."""
    made = pipeline.clone_collection(warehouse, collection, body)
    return CloneAnswer(collection=answer(made), source_collection_id=collection.collection_id)


@router.get("/collections/{collection_identifier}/features")
def features(collection: InCollection) -> FeaturesAnswer:
    """The vectors that can be searched."""
    return FeaturesAnswer(features=[_feature(collection, place) for place in range(len(collection.vectors))])


@router.post("/collections/{collection_identifier}/trigger", status_code=202)
def trigger_collection(
    warehouse: Opened, collection: InCollection, body: Annotated[TriggerRequest | None, Body()] = None
) -> TriggerAnswer:
    """Process what the collection reads: objects of its buckets, or documents of its upstream collections.

    With a unique key on the bucket documents are upserted, without one new documents are made.
    """
    return _triggered(collection, trigger(warehouse, collection, body or TriggerRequest()))


def _feature(collection: Collection, place: int) -> FeatureAnswer:
    one, extractor = collection.vectors[place], collection.feature_extractor
    words = f"{one.modality.capitalize()} vectors of {one.dim} numbers."
    return FeatureAnswer(
        feature_uri=one.feature_uri,
        feature_address=one.feature_uri,
        feature_name=one.output,
        feature_extractor_name=extractor.feature_extractor_name,
        version=extractor.version,
        vector_index=VectorAnswer(name=one.index_name, description=words, dimensions=one.dim),
        primary=place == 0,
        modality=one.modality,
    )


def _triggered(collection: Collection, done: Triggered) -> TriggerAnswer:
    first = done.batches[0]
    what = f"{done.objects} objects" if done.objects is not None else f"{done.documents} documents"
    return TriggerAnswer(
        batch_id=first.batch_id,
        task_id=first.task_id or "",
        collection_id=collection.collection_id,
        source_bucket_ids=list(done.bucket_ids) if done.objects is not None else None,
        source_collection_ids=list(done.collection_ids) if done.documents is not None else None,
        object_count=done.objects,
        document_count=done.documents,
        batch_ids=[one.batch_id for one in done.batches],
        task_ids=[one.task_id or "" for one in done.batches],
        batch_count=len(done.batches),
        total_tiers=done.tiers,
        message=f"Submitted {what} to collection {collection.collection_name!r} in {len(done.batches)} batch(es).",
    )


def answer(collection: Collection) -> CollectionAnswer:
    """A collection as clients see it."""
    extractor = collection.feature_extractor
    config = extractor.model_dump(mode="json", exclude={"parameters"})
    kind = {"extractor_type": extractor.feature_extractor_name}
    config |= {"parameters": {**kind, **extractor.parameters} if extractor.parameters else None}
    config |= {"params": extractor.parameters, "feature_extractor_id": extractor.extractor_id}
    source = collection.source.model_dump(mode="json", exclude_none=True)
    return CollectionAnswer(
        **collection.model_dump(
            include={"collection_id", "collection_name", "namespace_id", "description", "enabled", "metadata"}
        ),
        **collection.model_dump(include={"document_count", "created_at", "updated_at"}),
        input_schema=collection.input_schema.model_dump(mode="json"),
        output_schema=collection.output_schema.model_dump(mode="json"),
        feature_extractor=config,
        source={name: value for name, value in source.items() if value or name == "type"},
        vector_indexes=[
            {"name": one.index_name, "feature_uri": one.feature_uri, "dimensions": one.dim, "distance": "cosine"}
            for one in collection.vectors
        ],
        vector_count=len(collection.vectors) * collection.document_count,
    )


def _list(warehouse: Warehouse, namespace: Namespace, paging: Paging, body: CollectionPageBody) -> CollectionList:
    with warehouse.catalog.reading() as records:
        every = records.collections.all(namespace.namespace_id)
    found, total = select_page(
        every,
        paging,
        body,
        record=lambda one: one.model_dump(mode="json"),
        text=lambda one: f"{one.collection_name}\n{one.description or ''}",
    )
    documents = sum(one.document_count for one in every)
    stats = {
        "total_documents": documents,
        "avg_documents_per_collection": documents / len(every) if every else 0.0,
        "collections_with_taxonomies": 0,
        "total_feature_extractors": len({one.feature_extractor.extractor_id for one in every}),
        "total_taxonomies": 0,
        "total_retrievers": 0,
    }
    results = [answer(one) for one in found]
    block = pagination(paging, total=total, returned=len(results))
    return CollectionList(results=results, total_count=total, pagination=block, stats=stats)
