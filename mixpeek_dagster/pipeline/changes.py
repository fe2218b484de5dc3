"""Change documents one by one or by filter, write some directly, delete them with everything made from them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mixpeek_dagster.catalog import Records
from mixpeek_dagster.catalog.listing import Scope
from mixpeek_dagster.catalog.pages import Cursor
from mixpeek_dagster.errors import Invalid, NotFound
from mixpeek_dagster.models.collections import Collection
from mixpeek_dagster.models.documents import Document, DocumentState, Feature
from mixpeek_dagster.models.filters import Filter
from mixpeek_dagster.models.ids import BucketId, CollectionId, DocumentId, NamespaceId, ObjectId, derived_id, document_id, new_id
from mixpeek_dagster.pipeline.answers import lineage_of
from mixpeek_dagster.pipeline.indexing import index_documents
from mixpeek_dagster.pipeline.removal import finish_removals, remove_documents
from mixpeek_dagster.pipeline.warehouse import Warehouse

_CHUNK = 500
SYSTEM = frozenset({"document_id", "collection_id", "document_blobs", "_internal", "_vectors", "_expanded", "namespace_id"})
"""Names at the root of a document that no user may write."""
_DIRECT = ("root_object_id", "root_bucket_id", "source_document_id", "source_collection_id", "content_hash")
_IGNORED = frozenset({"source_object_id", "source_type", "lineage_path", "lineage_chain", "document_schema_version", "features"})


def create_document(warehouse: Warehouse, collection: Collection, body: Mapping[str, Any]) -> DocumentId:
    """Write a document that no extractor made. `vectors` maps names of the collection's vectors to numbers.

    Raises:
        Invalid: a vector is none of the collection's, or not of its size.
    """
    now = warehouse.now()
    vectors = _vectors(collection, body.get("vectors") or {})
    identity = new_id("direct")
    lineage = {name: body.get(name) for name in _DIRECT}
    if lineage["root_object_id"] is None and isinstance(body.get("source_object_id"), str):
        lineage["root_object_id"] = body["source_object_id"]
    for name, value in lineage.items():
        if not isinstance(value, str | None) or len(value or "") > 255:
            raise Invalid(f"{name}: expected an id")
    memo_key = derived_id("feat", collection.namespace_id, identity)
    document = Document(
        document_id=document_id(collection.collection_id, identity, 0),
        namespace_id=collection.namespace_id,
        collection_id=collection.collection_id,
        root_bucket_id=BucketId(lineage["root_bucket_id"]) if lineage["root_bucket_id"] else None,
        root_object_id=ObjectId(lineage["root_object_id"]) if lineage["root_object_id"] else None,
        source_document_id=DocumentId(lineage["source_document_id"]) if lineage["source_document_id"] else None,
        source_collection_id=CollectionId(lineage["source_collection_id"]) if lineage["source_collection_id"] else None,
        identity=identity,
        position=0,
        revision=1,
        memo_key=memo_key,
        content_hash=lineage["content_hash"] or "",
        state=_written_state(warehouse),
        payload={k: v for k, v in _payload(body).items() if k not in (*_DIRECT, *_IGNORED, "vectors")},
        created_at=now,
        updated_at=now,
    )
    with warehouse.catalog.transaction() as records:
        records.collections.get(collection.collection_id, namespace_id=collection.namespace_id)
        records.documents.add_features([Feature(memo_key, 0, {}, vectors)], now=now)
        records.documents.put(collection.collection_id, [document])
        _tell(records, "document.created", document, now=now)
    _reach_index(warehouse, collection, [document])
    return document.document_id


def change_document(
    warehouse: Warehouse,
    document_id: str,
    body: Mapping[str, Any],
    *,
    namespace_id: NamespaceId,
    collection_id: CollectionId | None = None,
    replace: bool,
) -> None:
    """Change the user's fields that are named, or with `replace` all of them. Its vectors and its lineage stay.

    Raises:
        NotFound: there is no such document in the namespace (and collection).
    """
    with warehouse.catalog.transaction() as records:
        document = records.documents.named([document_id], namespace_id=namespace_id).get(document_id)
        if document is None or collection_id not in (None, document.collection_id):
            raise NotFound(f"No document {document_id!r} in {collection_id or namespace_id}.")
        records.collections.hold(document.collection_id)  # before its documents, as `put` does
        document = records.documents.get(document_id, namespace_id=namespace_id)
        collection = records.collections.get(document.collection_id, namespace_id=namespace_id)
        changed = _changed(warehouse, document, body, replace=replace)
        records.documents.put(collection.collection_id, [changed])
        _tell(records, "document.updated", changed, now=changed.updated_at)
    _reach_index(warehouse, collection, [changed])


def delete_documents(
    warehouse: Warehouse, document_ids: Sequence[str], *, namespace_id: NamespaceId, collection_id: CollectionId | None = None
) -> list[str]:
    """Delete those that exist, with everything made from them; the ids there were."""
    now = warehouse.now()
    with warehouse.catalog.transaction() as records:
        found = records.documents.named(document_ids, namespace_id=namespace_id)
        doomed = [one for one in found.values() if collection_id in (None, one.collection_id)]
        remove_documents(records, warehouse, [one.document_id for one in doomed], now=now)
        for document in doomed:
            _tell(records, "document.deleted", document, now=now)
    finish_removals(warehouse)
    return [one.document_id for one in doomed]


def update_by_filter(warehouse: Warehouse, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Change every document that passes a filter: a task. Doing it again changes them to the same."""
    collection, scope = _scope(warehouse, inputs)
    body, updated = inputs["update_data"], 0
    for documents in _scan(warehouse, scope):
        with warehouse.catalog.transaction() as records:
            records.collections.hold(collection.collection_id)
            still = records.documents.named([one.document_id for one in documents], namespace_id=scope.namespace_id)
            there = [_changed(warehouse, one, body, replace=False) for one in still.values()]
            records.documents.put(collection.collection_id, there)
            updated += len(there)
        _reach_index(warehouse, collection, there)
    _told(warehouse, "documents.updated.batch", collection, updated)
    return {"updated_count": updated}


def delete_by_filter(warehouse: Warehouse, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Delete every document that passes a filter: a task."""
    collection, scope = _scope(warehouse, inputs)
    deleted = 0
    for documents in _scan(warehouse, scope):
        with warehouse.catalog.transaction() as records:
            remove_documents(records, warehouse, [one.document_id for one in documents], now=warehouse.now())
        finish_removals(warehouse, collection=collection)
        deleted += len(documents)
    _told(warehouse, "documents.deleted.batch", collection, deleted)
    return {"deleted_count": deleted}


def _scope(warehouse: Warehouse, inputs: Mapping[str, Any]) -> tuple[Collection, Scope]:
    namespace_id = NamespaceId(inputs["namespace_id"])
    with warehouse.catalog.reading() as records:
        collection = records.collections.get(inputs["collection_id"], namespace_id=namespace_id)
    wanted = Filter.parse(inputs.get("filters"))
    return collection, Scope(namespace_id=namespace_id, collection_ids=[collection.collection_id], filter=wanted)


def _scan(warehouse: Warehouse, scope: Scope) -> Iterator[list[Document]]:
    """The documents of a scope by id, chunk by chunk, each chunk read when the one before is done with."""
    after: Cursor | None = None
    while True:
        with warehouse.catalog.reading() as records:
            order = records.listing.order("document_id", descending=False)
            found = records.listing.page(scope, order, limit=_CHUNK, after=after)
        if not found:
            return
        yield found
        after = Cursor(found[-1].document_id, found[-1].document_id)


def _changed(warehouse: Warehouse, document: Document, body: Mapping[str, Any], *, replace: bool) -> Document:
    payload = _payload(body)
    return document.model_copy(
        update={
            "payload": payload if replace else {**document.payload, **payload},
            "state": _written_state(warehouse),
            "updated_at": warehouse.now(),
        }
    )


def _payload(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in SYSTEM}


def _written_state(warehouse: Warehouse) -> DocumentState:
    return DocumentState.PENDING if warehouse.index.is_projection else DocumentState.INDEXED


def _reach_index(warehouse: Warehouse, collection: Collection, documents: Sequence[Document]) -> None:
    if warehouse.index.is_projection:
        index_documents(warehouse, collection, documents)


def _vectors(collection: Collection, given: Any) -> dict[str, bytes]:
    if not isinstance(given, Mapping):
        raise Invalid("vectors: expected an object of name → list of numbers")
    known = {name: one for one in collection.vectors for name in (one.index_name, one.output, one.feature_uri)}
    found = {}
    for name, numbers in given.items():
        spec = known.get(name)
        if spec is None:
            raise Invalid(
                f"vectors.{name}: the collection has {', '.join(one.index_name for one in collection.vectors) or 'none'}"
            )
        try:
            array = np.asarray(numbers, dtype="<f4")
        except (TypeError, ValueError, OverflowError) as error:
            raise Invalid(f"vectors.{name}: expected a list of numbers") from error
        if array.shape != (spec.dim,) or not np.isfinite(array).all():
            raise Invalid(f"vectors.{name}: expected {spec.dim} finite numbers")
        found[spec.index_name] = array.tobytes()
    return found


def _tell(records: Records, event: str, document: Document, *, now: str) -> None:
    payload = {
        name: value for name, value in lineage_of(document).items() if name in ("document_id", "collection_id", "root_object_id")
    }
    resource = ("document", str(document.document_id))
    records.events.add(event, namespace_id=document.namespace_id, resource=resource, payload=payload, now=now)


def _told(warehouse: Warehouse, event: str, collection: Collection, count: int) -> None:
    with warehouse.catalog.transaction() as records:
        records.events.add(
            event,
            namespace_id=collection.namespace_id,
            resource=("collection", str(collection.collection_id)),
            payload={"collection_id": collection.collection_id, "count": count},
            now=warehouse.now(),
        )
